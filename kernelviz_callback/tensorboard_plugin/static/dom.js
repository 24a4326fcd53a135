/** An element. Attributes that are null or false are left out; functions listen; text stays text. */
export function el(tag, attributes = {}, ...children) {
  return dressed(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return dressed(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function dressed(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** An icon of one path, 16 x 16, in the colour of the text; what it means is said by its button. */
export function icon(path) {
  return svg("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", class: "icon" },
    svg("path", { d: path, fill: "currentColor" }));
}

/** Touches the document only if it has to: setting the same text again costs a layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setOptions(select, options, chosen) {
  const known = JSON.stringify(options);
  if (select.dataset.options !== known) {
    select.dataset.options = known;
    select.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
  }
  select.value = chosen;
}

export function say(number) {
  if (number === null || number === undefined || Number.isNaN(number)) return "–";
  if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
  const size = Math.abs(number);
  const small = size && size < 1e-3, large = size >= 1e5;
  const text = small || large ? number.toExponential(1) : size >= 100 ? number.toFixed(0) : number.toFixed(3);
  return text.replaceAll("-", "−");
}

const GROUPING = new Intl.NumberFormat("en-US");

export const grouped = (number) => GROUPING.format(number);

export const counted = (number, noun) => `${grouped(number)} ${noun}${number === 1 ? "" : "s"}`;

export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** Calls at most once in so many milliseconds, and once more at the end. */
export function throttled(milliseconds, callback) {
  let timer = null, last = -Infinity;
  return () => {
    if (timer !== null) return;
    timer = setTimeout(() => {
      timer = null;
      last = performance.now();
      callback();
    }, Math.max(0, last + milliseconds - performance.now()));
  };
}

/** Calls when it has not been asked again for so many milliseconds. */
export function settled(milliseconds, callback) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(callback, milliseconds);
  };
}

/** Calls before the next picture is drawn, however often it is asked. */
export function eachFrame(callback) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame((now) => {
      asked = false;
      callback(now);
    });
  };
}
