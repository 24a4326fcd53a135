import { start } from "./app.js";
import { takeFocus } from "./host.js";
import { TabSource } from "./source.js";

/** What TensorBoard calls in the frame of the tab. */
export function render() {
  document.documentElement.lang = "en";
  document.title = "Kernels";
  const style = document.createElement("link");
  Object.assign(style, { rel: "stylesheet", href: "style.css" });
  // Without its style a page flashes, and grids measure rooms that they will not have.
  style.onload = style.onerror = () => start(document.body, new TabSource());
  document.head.append(style);
  takeFocus();
}
