import { start } from "./app.js";
import { takeFocus } from "./host.js";
import { TabSource } from "./source.js";

/** Show the tab: TensorBoard calls this in the frame of the tab. */
export function render() {
  document.documentElement.lang = "en";
  document.title = "Kernels";
  const style = document.createElement("link");
  Object.assign(style, { rel: "stylesheet", href: "style.css" });
  // Before the style is loaded the page flickers, and grids would measure wrong sizes.
  style.onload = style.onerror = () => start(document.body, new TabSource());
  document.head.append(style);
  takeFocus();
}
