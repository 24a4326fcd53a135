"""Comparisons whose pages are tested, and their pages in a browser."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kernelviz_callback.comparison.compare import compare
from kernelviz_callback.comparison.comparison import Comparison
from kernelviz_callback.comparison.page import comparison_page
from kernelviz_callback.health.verdicts import Verdict

_KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
HOSTILE = "</script><script>alert(1)</script><!--"


def trained_layers(count: int, *shape: int, filters: int = 12) -> list[nn.Module]:
    """Make a layer that drifts; in the last copy one filter is near zero and one has a NaN."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(filters, *shape, generator=generator) * 0.1
    layers = []
    for k in range(count):
        layer = _KINDS[len(shape) - 1](shape[0], filters, shape[1:])
        noise = torch.randn(weights.shape, generator=generator) * 0.02 * k
        layer.weight.data = weights + noise * torch.rand(
            filters, *[1] * len(shape), generator=generator
        )
        layers.append(layer)
    layers[-1].weight.data[3] *= 0.01
    layers[-1].weight.data[(5, 0, *[min(1, taps - 1) for taps in shape[1:]])] = torch.nan
    return layers


def run_of_four() -> Comparison:
    """Compare four checkpoints of one training, at steps 0 to 30."""
    compared = compare(*trained_layers(4, 3, 5, 5))
    columns = tuple(replace(c, step=10 * k, epoch=k) for k, c in enumerate(compared.columns))
    return replace(compared, columns=columns)


def data_of(page: str) -> dict[str, Any]:
    """Read the data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def with_hostile_name(run: Comparison, where: str) -> Comparison:
    """Return the comparison with a name at one place that would run a script."""
    first = run.first
    if where == "statement":
        return replace(run, statements=(HOSTILE,))
    if where == "reason":
        verdicts = (Verdict(0, "duplicate", HOSTILE),)
        first = replace(first, health=replace(first.health, verdicts=verdicts))
    else:
        first = replace(first, **{where: HOSTILE})
    return replace(run, columns=(first, *run.columns[1:]))


@contextmanager
def opening_pages(browser: Any, folder: Path) -> Iterator[Callable[..., Any]]:
    """Open pages of comparisons from the disk; they must not raise errors or fetch anything."""
    complaints: list[str] = []
    tabs = []

    def look(comparison: Comparison, **settings: Any) -> Any:
        path = folder / f"compare {len(tabs)}.html"
        path.write_text(comparison_page(comparison), encoding="utf-8")
        tab = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **settings})
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: _note_fetch(request.url, path, complaints))
        tab.goto(path.as_uri())
        tab.wait_for_selector("#filters tbody tr", state="attached")
        tabs.append(tab)
        return tab

    yield look
    for tab in tabs:
        tab.close()
    assert complaints == [], complaints


def _note_fetch(url: str, path: Path, complaints: list[str]) -> None:
    if url != path.as_uri() and not url.startswith("data:"):
        complaints.append(f"fetched {url}")
