/** Handle keys of the whole page, but no key that a focused field needs. */
export function listenToKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    const { target } = event;
    if (target instanceof HTMLElement && target.closest("textarea, select, input:not([type=checkbox], [type=radio])")) return;
    const isRadio = target instanceof HTMLElement && target.closest("input[type=radio]");
    const isPressed = target instanceof HTMLElement && target.closest("button, input, summary, a");
    const by = event.shiftKey ? 10 : 1;
    const run = {
      ArrowLeft: isRadio ? null : () => actions.moveBy(-by),
      ArrowRight: isRadio ? null : () => actions.moveBy(by),
      Home: () => actions.moveTo(0),
      End: () => actions.moveTo(Infinity),
      " ": isPressed ? null : () => actions.togglePlay(),
      Escape: () => actions.closeFilter(),
      "[": () => actions.selectNeighbour(-1),
      "]": () => actions.selectNeighbour(1),
    }[event.key];
    if (!run) return;
    event.preventDefault();
    run();
  });
}

/** Focus the slider after a click with a mouse or a finger, so that arrow keys and space control it. */
export function listenToClicks(focusSlider) {
  let isPointed = false;
  document.addEventListener("pointerdown", () => (isPointed = true), true);
  document.addEventListener("keydown", () => (isPointed = false), true);
  document.addEventListener("click", ({ target }) => {
    if (isPointed && target.closest(".tiles, input[type=radio], .chip, .film-frame, .mark")) focusSlider();
  });
}

/** Call with a file that is dropped anywhere on the page. */
export function listenToDrops(root, onFile) {
  let depth = 0;
  const hasFile = (event) => [...event.dataTransfer.types].includes("Files");
  const show = (isOver) => root.classList.toggle("dropping", isOver);
  document.addEventListener("dragenter", (event) => hasFile(event) && show(++depth > 0));
  document.addEventListener("dragleave", (event) => hasFile(event) && show(--depth > 0));
  document.addEventListener("dragover", (event) => hasFile(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    show((depth = 0) > 0);
    onFile(event.dataTransfer.files[0]);
  });
}
