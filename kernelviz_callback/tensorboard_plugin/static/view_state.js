const TEXT = { read: (text) => text, write: (value) => value };
const NUMBER = {
  read: (text) => text !== "" && Number.isFinite(Number(text)) ? Number(text) : undefined,
  write: String,
};
const FLAG = { read: (text) => text === "1", write: (value) => value ? "1" : "0" };
const NAMES = {
  read: (text) => text.split(",").map(decoded).filter(Boolean),
  write: (names) => names.map(encodeURIComponent).join(","),
};
const choice = (...names) => ({ read: (text) => names.includes(text) ? text : undefined, write: String });

/** Everything that a link restores: the default value, and how it is read and written. */
const VIEW = {
  runs: [null, NAMES],
  layer: [null, TEXT],
  step: [null, NUMBER], // null: the last snapshot, also when new ones arrive
  axis: ["auto", choice("auto", "log", "linear")],
  scale: ["filter", choice("filter", "layer", "run")],
  channel: ["rgb", TEXT],
  response: ["auto", choice("auto", "channels", "sum")], // auto: one plane for each of three channels, else their sum
  difference: ["none", choice("none", "first", "previous", "pinned")],
  pinned: [null, NUMBER],
  order: ["index", choice("index", "norm", "drift", "health")],
  ordered: [null, NUMBER], // the step by which tiles are ordered; null: the last
  match: [false, FLAG],
  filter: [null, NUMBER],
  of: [null, TEXT], // the run of the selected filter; null: the first one shown
  verdict: [null, TEXT],
  speed: [null, NUMBER],
  zoom: [null, NUMBER],
};

const defaultView = () => Object.fromEntries(Object.entries(VIEW).map(([key, [value]]) => [key, value]));

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

/** Read a view from a hash in TensorBoard's format: the tab, then key=value, joined by "&". */
function viewOfHash(hash, prefix) {
  const view = defaultView();
  for (const pair of hash.replace(/^#/, "").split("&")) {
    const [name, text] = pair.split("=");
    const key = decoded(name).slice(prefix.length);
    if (text === undefined || !decoded(name).startsWith(prefix) || !Object.hasOwn(VIEW, key)) continue;
    view[key] = VIEW[key][1].read(decoded(text)) ?? view[key];
  }
  return view;
}

/** Write a view into a hash. Other keys of the hash stay as they are. */
function hashWithView(hash, view, prefix) {
  const others = hash.replace(/^#/, "").split("&").filter((pair) => pair && !(
    pair.includes("=") && decoded(pair.split("=")[0]).startsWith(prefix)
    && Object.hasOwn(VIEW, decoded(pair.split("=")[0]).slice(prefix.length))));
  const own = Object.entries(VIEW).flatMap(([key, [usual, { write }]]) =>
    view[key] === usual ? [] : [`${encodeURIComponent(prefix + key)}=${encodeURIComponent(write(view[key]))}`]);
  return [...others, ...own].join("&");
}

/**
 * The address that holds the view. In TensorBoard it is TensorBoard's own address, which people copy,
 * not that of the frame; in a report it is that of the page.
 */
export class ViewLink {
  constructor(isTab) {
    this.prefix = isTab ? "p.kernels." : "";
    this.isTab = isTab;
    this.page = isTab ? outerWindow() : window;
    this.timer = null;
  }

  read() {
    return viewOfHash(this.page.location.hash, this.prefix);
  }

  /** Write a view after a short pause, because browsers refuse an address that changes with every frame. */
  write(view) {
    this.view = { ...view };
    this.timer ??= setTimeout(() => {
      this.timer = null;
      const hash = hashWithView(this.page.location.hash, this.view, this.prefix);
      if (`#${hash}` === this.page.location.hash || !hash && !this.page.location.hash) return;
      const { history, location } = this.page;
      history.replaceState(history.state, "", location.pathname + location.search + (hash && `#${hash}`));
    }, 300);
  }

  /** Call with a view that was not written by the page: the user followed or edited a link. */
  listen(callback) {
    this.page.addEventListener("hashchange", () => {
      const hash = this.page.location.hash, isOurs = !this.isTab || hash.startsWith("#kernels");
      const own = this.view && hashWithView("", this.view, this.prefix);
      if (isOurs && hashWithView("", this.read(), this.prefix) !== own) callback(this.read());
    });
  }

  href(view) {
    const { origin, pathname, search, hash, protocol } = this.page.location;
    const bare = this.isTab ? hash.replace(/^#[^&]*/, "#kernels") || "#kernels" : hash;
    const site = protocol === "file:" ? "file://" : origin;
    return `${site}${pathname}${search}#${hashWithView(bare, view, this.prefix)}`;
  }
}

function outerWindow() {
  try {
    return typeof window.parent.location.hash === "string" ? window.parent : window;
  } catch {
    return window; // TensorBoard is itself a frame of another site
  }
}
