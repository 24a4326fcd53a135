import { el } from "./dom.js";

const WIDE = "(min-width: 1100px)";

/** Put the parts into the page. The side bar is folded in a narrow window. */
export function buildShell(root, { sidebar, transport, timeline, board, drawer, notices }) {
  const side = el("details", { class: "side", "data-role": "side" }, el("summary", {}, "Runs, layer and colours"), sidebar.root);
  const tip = el("div", { class: "tip", role: "tooltip", hidden: true, "data-role": "tip" });
  timeline.lane.append(notices.loading);
  const top = el("header", { class: "top", "aria-label": "Timeline" }, transport.root, timeline.root, transport.aside);
  const bar = el("div", { class: "bar" }, notices.legend);
  const main = el("main", { "aria-label": "Kernels and responses" }, el("h1", { class: "unseen" }, "Kernels"), bar, board.root, notices.notes);
  const viewer = el("div", { class: "viewer" }, el("nav", { "aria-label": "What is shown" }, side), top, main, drawer.root);
  root.classList.add("kernels");
  root.append(notices.banner, notices.page, viewer, tip, transport.live,
    el("div", { class: "drop-here", "aria-hidden": "true" }, "Drop an image to see how the filters respond to it"));
  const wide = matchMedia(WIDE);
  const fold = () => (side.open = wide.matches);
  wide.addEventListener("change", fold);
  fold();
  return { viewer, tip };
}

/** Show lines in a tooltip near an element or the pointer, inside the window; null hides it. */
export function placeTip(tip, lines, anchor) {
  tip.hidden = !lines;
  if (!lines) return;
  tip.replaceChildren(...lines.map((line) => el("span", {}, line)));
  const box = anchor instanceof Element ? anchor.getBoundingClientRect() : { left: anchor.clientX, right: anchor.clientX, top: anchor.clientY, bottom: anchor.clientY };
  const width = tip.offsetWidth, height = tip.offsetHeight;
  const left = Math.max(8, Math.min(box.left + 12, innerWidth - width - 8));
  const below = box.bottom + 16, top = below + height < innerHeight ? below : box.top - height - 12;
  tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(Math.max(4, top))}px)`;
}
