import { countText, el, numberText } from "../tensorboard_plugin/static/dom.js";
import { StepAxis } from "../tensorboard_plugin/static/step_axis.js";
import { Chart } from "./page_chart.js";
import { checkpoints, comparesWeights, data, differs, find, first, hasRisingSteps, last, presentVerdicts } from "./page_data.js";
import { fillTable } from "./page_parts.js";

/** The top of the page: the header, the statements, the table of numbers, the chart. */

const byShape = (shape) => shape.slice(1).join(" × ");
const whole = (value) => (value === null ? null : String(value));
const quantity = comparesWeights
  ? { key: "change_from_first", name: "change", title: "Change from the first" }
  : { key: "correlation", name: "correlation", title: "Correlation of responses with the first" };

export function fillHeader() {
  find("layer").textContent = first.layer;
  find("shape").textContent = `${countText(first.shape[0], "filter")}, ${byShape(first.shape)}, in ${checkpoints.length} checkpoints`;
  const listed = checkpoints.length > 4 ? [first, last] : checkpoints;
  find("checkpoints").append(...listed.map((checkpoint, k) => el("div", {},
    el("dt", {}, checkpoint === first ? "First" : checkpoint === last ? "Last" : `Number ${k + 1}`),
    el("dd", { title: checkpoint.name }, checkpoint.label),
    el("dd", { class: "faint" }, [
      ...(checkpoint.step === null ? [] : [`step ${checkpoint.step}`]),
      ...(checkpoint.epoch === null ? [] : [`epoch ${checkpoint.epoch}`]),
      `${checkpoint.shape[0]} × ${byShape(checkpoint.shape)}`,
      ...(differs(({ layer }) => layer) ? [`layer ${checkpoint.layer}`] : []),
    ].join(", ")))));
  find("statements").append(...data.statements.map((text) => el("li", {}, text)));
  find("notes").append(...data.notes.map((text) => el("li", {}, text)));
}

/** Fill the table of the whole layer, without columns that are empty for all checkpoints. */
export function fillNumbers() {
  const all = [
    ["Checkpoint", ({ label }) => label],
    ["Step", ({ step }) => whole(step)],
    ["Epoch", ({ epoch }) => whole(epoch)],
    ["Shape", ({ shape }) => (differs((checkpoint) => String(checkpoint.shape)) ? shape.join(" × ") : null)],
    ["Drift", ({ numbers }) => numbers.drift],
    ["Mean cosine", ({ numbers }) => numbers.mean_cosine],
    ["Mean correlation", ({ numbers }) => numbers.mean_correlation],
    similarityColumn("Weights alike", "weights_alike"),
    similarityColumn("Responses alike", "responses_alike"),
    ["New verdicts", ({ numbers }) => whole(numbers.new_verdicts)],
    ["Gone verdicts", ({ numbers }) => whole(numbers.gone_verdicts)],
    ...presentVerdicts.map((name) => [name, (checkpoint) => whole(checkpoint.verdict_counts[name])]),
  ];
  const kept = all.filter(([, read]) => checkpoints.some((checkpoint) => (read(checkpoint) ?? null) !== null));
  fillTable(find("numbers"), kept, checkpoints);
  const absent = data.verdict_names.filter((name) => !presentVerdicts.includes(name));
  find("numbers-note").textContent = absent.length ? `In no checkpoint: ${absent.join(", ")}.` : "";
}

/**
 * The column of a similarity. Its chance level stands in the title where it is the same for all
 * checkpoints.
 */
function similarityColumn(title, key) {
  const chances = new Set(checkpoints.filter((checkpoint) => checkpoint[key]).map((checkpoint) => numberText(checkpoint[key][1])));
  if (chances.size === 1) return [`${title} (chance ${[...chances]})`, (checkpoint) => checkpoint[key] && checkpoint[key][0]];
  return [title, (checkpoint) => checkpoint[key] && `${numberText(checkpoint[key][0])} (chance ${numberText(checkpoint[key][1])})`];
}

/** Draw the chart of all filters, most changed first; `open` is called with a filter that is clicked. */
export function fillChart(open) {
  find("chart-title").textContent = quantity.title;
  drawChart(find("chart"), data.order, open);
}

/** Draw some filters over all checkpoints, or, of two checkpoints, their values in the last. */
export function drawChart(host, filters, open) {
  if (checkpoints.length === 2) {
    const lines = filters.map((filter) => ({ filter, values: [last.filters[quantity.key][filter]] }));
    return new Chart(host, { what: quantity.name, lines: lines.filter(({ values }) => values[0] !== null), open });
  }
  const ofLayer = comparesWeights ? checkpoints.map(({ numbers }, k) => (k ? numbers.drift : 0)) : null;
  const valuesOf = (filter) => checkpoints.map((checkpoint, k) =>
    (k || !comparesWeights ? checkpoint.filters[quantity.key][filter] : 0));
  return new Chart(host, {
    what: quantity.name, bold: ofLayer, axis: chartAxis(), open,
    lines: filters.map((filter) => ({ filter, values: valuesOf(filter) })),
  });
}

/** The steps of the checkpoints where they rise, else the checkpoints at equal distances. */
function chartAxis() {
  if (!hasRisingSteps) {
    return {
      shares: checkpoints.map((_, k) => k / (checkpoints.length - 1)), note: "checkpoints, in their order",
      names: checkpoints.map((_, k) => String(k + 1)), unit: "checkpoint ",
    };
  }
  const linear = new StepAxis(checkpoints.map(({ step }) => step));
  const axis = linear.isMiddleEarly ? new StepAxis(linear.steps, true) : linear;
  return {
    shares: [...axis.shares], note: axis.isLogarithmic ? "step, logarithmic" : "step",
    names: checkpoints.map(({ step }) => String(step)), unit: "step ",
  };
}
