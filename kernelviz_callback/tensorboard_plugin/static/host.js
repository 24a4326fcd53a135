const RELOADED = "experimental.DataReloaded";

/** Follow the theme of TensorBoard, or, outside of TensorBoard, of the system. */
export function followTheme() {
  const outer = outerBody();
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const isDark = outer ? outer.classList.contains("dark-mode") : system.matches;
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
  };
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
  else system.addEventListener("change", apply);
  apply();
}

function outerBody() {
  try {
    return window.parent === window ? null : window.parent.document.body;
  } catch {
    return null;
  }
}

/** Take the focus so that keys work at once, unless the user is typing in another part of TensorBoard. */
export function takeFocus() {
  const focused = outerBody()?.ownerDocument.activeElement;
  if (!focused?.matches("input, textarea, [contenteditable]")) window.focus();
}

/** Call when TensorBoard's reload button is pressed, with the protocol of TensorBoard's plugin library. */
export function onReload(callback) {
  if (window.parent === window) return;
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = ({ data }) => {
    const { type, id, isReply } = JSON.parse(data);
    if (isReply) return;
    if (type === RELOADED) callback();
    port1.postMessage(JSON.stringify({ type, id, payload: null, error: null, isReply: true }));
  };
  window.parent.postMessage("experimental.bootstrap", "*", [port2]);
}

/** Copy a text to the clipboard. Returns false where the browser does not allow it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(field);
    field.select();
    const worked = document.execCommand("copy");
    field.remove();
    return worked;
  }
}
