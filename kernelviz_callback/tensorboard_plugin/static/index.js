import { start } from "./app.js";
import { takeFocus } from "./host.js";
import { TabSource } from "./source.js";

const STYLES = ["theme.css", "style.css"];

/** Show the tab: TensorBoard calls this in the frame of the tab. */
export function render() {
  document.documentElement.lang = "en";
  document.title = "Kernels";
  // Without its styles the page would flicker, and the grids would measure wrong sizes.
  Promise.all(STYLES.map(loadStyle)).then(() => start(document.body, new TabSource()));
  takeFocus();
}

/** Load a style sheet. Resolves when it is loaded or has failed. */
function loadStyle(href) {
  return new Promise((resolve) => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href });
    link.onload = link.onerror = resolve;
    document.head.append(link);
  });
}
