"""What the README claims can be run, read and found."""

import re
from pathlib import Path

import pytest
import torch
from conftest import TinyNet

from kernelviz_callback import EncodedImage, KernelVizCallback
from kernelviz_callback.destinations.choice import destination_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_blocks_run_one_after_the_other(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    uploaded: dict[str, bytes] = {}

    class MyLogger:
        def upload(self, name: str, content: bytes) -> None:
            uploaded[name] = content

    monkeypatch.setattr("kernelviz_callback.destinations.choice._own", {})
    namespace = {"model": TinyNet(), "MyLogger": MyLogger}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 7
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    destination = destination_of(MyLogger())
    assert destination is not None
    destination.log({"kernels/conv1": EncodedImage(b"a", 1, 1, ".png")}, 7, {}, [])
    assert uploaded == {"kernels/conv1-7.png": b"a"}
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "compare.png",
        *(f"conv-{step:06d}.png" for step in (0, 1, 2, 4, 8)),
    }


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


def test_the_table_of_options_is_complete() -> None:
    import inspect

    signature = inspect.signature(KernelVizCallback)
    table = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", README, re.MULTILINE))
    expected = {
        name: f'"{p.default}"' if isinstance(p.default, str) else str(p.default)
        for name, p in signature.parameters.items()
    }
    assert table == expected
