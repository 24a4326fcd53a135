"""The links and the table of options in the README."""

import re
from pathlib import Path

import pytest

from kernelviz_callback import KernelVizCallback

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_exists(link: str) -> None:
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
