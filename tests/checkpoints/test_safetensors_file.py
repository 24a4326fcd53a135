"""Open snapshots and other safetensors files."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from kernelviz_callback import Snapshot, save_snapshot
from kernelviz_callback.checkpoints.checkpoint import load_weights, open_checkpoint
from kernelviz_callback.model.convolutions import Geometry

GEOMETRY = Geometry("Conv2d", (2, 2), "same", (1, 3), 2)


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(1))


def rewrite(path: Path, change: Any) -> None:
    """Change the header of a file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header = change(header) or header
    written = json.dumps(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + length :])


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
    ],
)
def test_files_of_other_programs_are_opened(
    dtype: torch.dtype, weight: Tensor, tmp_path: Path
) -> None:
    stored = {
        "model.conv.weight": weight.to(dtype),
        "model.ids.weight": torch.ones(8, 3, 5, 5, dtype=torch.int64),
        "head.weight": torch.ones(3, 3),
    }
    save_file(stored, tmp_path / "a.bin", metadata={"format": "pt"})
    checkpoint = open_checkpoint(tmp_path / "a.bin")
    assert list(checkpoint.layers) == ["model.conv"]
    reason = "its weights are made of whole numbers (int64)"
    assert dict(checkpoint.refused) == {"model.ids": reason}
    torch.save(stored, tmp_path / "a.pt")
    assert open_checkpoint(tmp_path / "a.pt").refused == checkpoint.refused
    assert torch.equal(checkpoint.read(), weight.to(dtype).float())
    assert checkpoint.layers["model.conv"].geometry is None


def test_snapshots_are_opened_with_step_epoch_and_geometry(weight: Tensor, tmp_path: Path) -> None:
    names = ["b.module.conv", "ema.conv", "a"]
    weights = {name: weight + i for i, name in enumerate(names)}
    snapshot = Snapshot(7, 2, 0.0, weights, dict.fromkeys(names, GEOMETRY))
    checkpoint = open_checkpoint(save_snapshot(snapshot, tmp_path))
    assert (checkpoint.step, checkpoint.epoch) == (7, 2)
    assert list(checkpoint.layers) == names
    for name in names:
        assert torch.equal(checkpoint.read(name), weights[name])
        assert checkpoint.layers[name].geometry == GEOMETRY


@pytest.mark.parametrize(
    ("shape", "geometry"),
    [
        ((8, 2, 31), Geometry("Conv1d", (4,), (0,), (3,), 2)),
        ((8, 2, 2, 3, 5), Geometry("Conv3d", (1, 2, 2), "same", (1, 1, 2), 4)),
    ],
)
def test_snapshots_of_1d_and_3d_layers_are_opened(
    shape: tuple[int, ...], geometry: Geometry, tmp_path: Path
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    path = save_snapshot(Snapshot(7, 2, 0.0, {"conv": weight}, {"conv": geometry}), tmp_path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.layers["conv"].geometry == geometry
    assert torch.equal(checkpoint.read(), weight)
    rewrite(Path(str(path)), change_geometry(dilation=[1, 1]))
    with pytest.raises(ValueError, match="damaged"):
        open_checkpoint(path)


def test_the_format_is_read_from_the_content_not_the_suffix(weight: Tensor, tmp_path: Path) -> None:
    torch.save({"conv.weight": weight}, tmp_path / "a.safetensors")
    assert torch.equal(load_weights(tmp_path / "a.safetensors"), weight)
    save_file({"conv.weight": weight}, tmp_path / "a.pt")
    assert torch.equal(load_weights(tmp_path / "a.pt"), weight)


def change_geometry(**fields: Any) -> Any:
    """Return a function that changes the geometry in the description of a snapshot."""

    def change(header: dict[str, Any]) -> None:
        description = json.loads(header["__metadata__"]["kernelviz"])
        description["layers"]["conv"].update(fields)
        header["__metadata__"]["kernelviz"] = json.dumps(description)

    return change


def change_entry(**fields: Any) -> Any:
    return lambda header: header["conv/weight"].update(fields)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: [1],
        lambda header: header.pop("conv/weight") and None,
        lambda header: header.update({"x.weight": 3}),
        lambda header: header["__metadata__"].update(kernelviz="{"),
        lambda header: header["__metadata__"].update(kernelviz="[" * 100_000),
        lambda header: header["__metadata__"].update(kernelviz="3"),
        change_entry(shape=[8, 3, 5, 6]),
        change_entry(shape=[-8, 3, -5, 5]),
        change_entry(shape=[10**9, 10**9, 5, 5]),
        change_entry(shape=[600]),
        change_entry(shape="8355"),
        change_entry(data_offsets=[0, 10**9]),
        change_entry(data_offsets=[-2400, 0]),
        change_entry(data_offsets=[4, 2404]),
        change_entry(dtype=3),
        change_geometry(stride=[0, 1]),
        change_geometry(dilation=[10**9, 1]),
        change_geometry(dilation="x"),
        change_geometry(groups=3),
        change_geometry(groups=-1),
        change_geometry(more=1),
    ],
)
def test_wrong_headers_are_an_error(change: Any, weight: Tensor, tmp_path: Path) -> None:
    snapshot = Snapshot(7, 2, 0.0, {"conv": weight}, {"conv": GEOMETRY})
    path = Path(str(save_snapshot(snapshot, tmp_path)))
    rewrite(path, change)
    with pytest.raises(ValueError, match=rf"^{path}: [^\n]*damaged: [^\n]*$|: neither a file of"):
        load_weights(path)


def test_a_header_in_utf_16_is_an_error(weight: Tensor, tmp_path: Path) -> None:
    """Python reads JSON in UTF-16 too, but a safetensors header is UTF-8."""
    path = tmp_path / "a.safetensors"
    save_file({"conv.weight": weight}, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].decode().encode("utf-16-le")
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    with pytest.raises(ValueError, match=r"damaged: its header is not valid$"):
        load_weights(path)


@pytest.mark.parametrize("length", [0, 3, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_wrong_lengths_of_the_header_are_an_error(
    length: int, weight: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"conv.weight": weight}, path)
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(ValueError, match=rf"^{path}: damaged: its header [^\n]*$"):
        load_weights(path)


def test_truncated_files_are_an_error(weight: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"conv.weight": weight}, path)
    whole = path.read_bytes()
    for size in range(1, len(whole), 61):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"^{path}: [^\n]*$"):
            load_weights(path)


def test_two_tensors_of_one_name_are_an_error(tmp_path: Path) -> None:
    entry = '"conv.weight":{"dtype":"F32","shape":[4,1,2,2],"data_offsets":[0,64]}'
    header = f"{{{entry},{entry}}}".encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    with pytest.raises(ValueError, match=r"a\.safetensors: damaged: its header is not valid"):
        open_checkpoint(tmp_path / "a.safetensors")
