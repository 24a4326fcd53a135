"""Measure the memory and time for reading one layer of a large checkpoint."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import run_python
from safetensors.torch import save_file
from test_torch_file import save_legacy
from torchvision.models import resnet50

MEGABYTE = 1 << 20
READ = """
import sys, time
import numpy, torch
from hostile_files import peak_memory
from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
before = peak_memory()
began = time.perf_counter()
assert open_checkpoint(sys.argv[1]).read("conv1").shape == (64, 3, 7, 7)
print(time.perf_counter() - began, peak_memory() - before)
"""


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """A ResNet-50 and the state of its AdamW optimizer: 300 MB."""
    net = resnet50()
    optimizer = torch.optim.AdamW(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones(()).expand_as(parameter)
    optimizer.step()
    return {
        "epoch": 1,
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
    }


def save_safetensors(content: dict[str, Any], path: Path) -> None:
    copies = {f"{c}.{n}": x.clone() for n, x in content["state_dict"].items() for c in "ab"}
    save_file({**content["state_dict"], **copies}, path)


@pytest.mark.processes
@pytest.mark.parametrize("save", [torch.save, save_legacy, save_safetensors])
def test_reading_one_layer_of_a_large_checkpoint_takes_little_memory(
    save: Callable[..., None], content: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "large.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(content, path)
    assert path.stat().st_size > 290 * MEGABYTE
    done = run_python("-c", READ, str(path), cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    path.unlink()
    seconds, taken = map(float, done.stdout.split())
    assert taken < 60 * MEGABYTE
    assert seconds < 2
    print(f"{save.__name__}: {seconds:.3f} s, {taken / MEGABYTE:.0f} MB")
