import { CheckpointTiles } from "./page_tiles.js";

/** The comparison that is embedded in the page, and what follows from it. */

export const data = JSON.parse(document.getElementById("data").textContent);
export const checkpoints = data.checkpoints;
export const first = checkpoints[0];
export const last = checkpoints.at(-1);
for (const checkpoint of checkpoints) {
  checkpoint.partner ??= Array.from({ length: first.shape[0] }, (_, k) => k);
}

export const plates = data.plates.map((given) => new CheckpointTiles(given));
/** The plates of checkpoints, without the difference. */
export const pictured = plates.filter((plate) => !plate.isDifference);
/** The place of each filter among all, most changed first. */
export const rankOf = new Map(data.order.map((filter, k) => [filter, k]));

export const isKnown = (name) => last.filters[name].some((value) => value !== null);
export const comparesWeights = isKnown("change_from_first");

const hasSteps = checkpoints.every(({ step }) => step !== null);
const hasDistinctSteps = hasSteps && new Set(checkpoints.map(({ step }) => step)).size === checkpoints.length;
export const hasRisingSteps = hasSteps && checkpoints.every(({ step }, k) => !k || step > checkpoints[k - 1].step);

export const captionOf = (checkpoint) => (hasDistinctSteps ? `step ${checkpoint.step}` : checkpoint.label);
export const nameOf = (plate) => (plate.isDifference ? "last − first" : captionOf(checkpoints[plate.checkpoint]));
/** The number of a filter of the first checkpoint in the checkpoint of a plate; -1 without a partner. */
export const partnerIn = (plate, filter) => checkpoints[plate.checkpoint ?? pictured.at(-1).checkpoint].partner[filter];
/** Whether a property differs between checkpoints. */
export const differs = (read) => new Set(checkpoints.map(read)).size > 1;

export const find = (id) => document.getElementById(id);

/** For each checkpoint: filter to verdict name to reason. */
const verdictsByFilter = checkpoints.map((checkpoint) => {
  const found = new Map();
  for (const [filter, name, reason] of checkpoint.verdicts) {
    if (!found.has(filter)) found.set(filter, new Map());
    found.get(filter).set(data.verdict_names[name], reason ?? "");
  }
  return found;
});

export const verdictNamesAt = (checkpoint, filter) =>
  [...(verdictsByFilter[checkpoints.indexOf(checkpoint)].get(filter)?.keys() ?? [])];

/** The verdicts that any filter of any checkpoint has. */
export const presentVerdicts = data.verdict_names.filter((name) =>
  checkpoints.some((checkpoint) => checkpoint.verdict_counts[name]));

/**
 * [state, name, reason] of each verdict of a filter; the state is new, still or gone in the last
 * checkpoint.
 */
export function verdictsOf(filter) {
  const then = verdictsByFilter[0].get(filter) ?? new Map(), now = verdictsByFilter.at(-1).get(filter) ?? new Map();
  return data.verdict_names.flatMap((name) => {
    if (now.has(name)) return [[then.has(name) ? "still" : "new", name, now.get(name)]];
    return then.has(name) ? [["gone", name, then.get(name)]] : [];
  });
}
