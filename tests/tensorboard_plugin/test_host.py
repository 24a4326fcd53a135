"""What the Kernels tab does to TensorBoard's page around its frame."""

import pytest
from engine_page import Engine

pytestmark = pytest.mark.browser

FRAME = """
const field = document.createElement(tag), frame = document.createElement("iframe");
document.body.append(field, frame);
field.focus();
const before = document.activeElement === field;
frame.contentWindow.eval(`import("${new URL("host.js", document.baseURI)}")`
  + ".then(({ takeFocus }) => { takeFocus(); window.isDone = true; })");
while (!frame.contentWindow.isDone) await new Promise((done) => setTimeout(done, 5));
const found = [before, document.activeElement === frame];
field.remove();
frame.remove();
return found;
"""


@pytest.mark.parametrize(
    ("tag", "is_taken"), [("button", True), ("input", False), ("textarea", False)]
)
def test_the_focus_is_not_taken_from_a_text_field(engine: Engine, tag: str, is_taken: bool) -> None:
    assert engine(FRAME, tag=tag) == [True, is_taken]
