"""The file of a snapshot: written, read back, and refused if it is damaged."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from example_snapshot import example_snapshot
from safetensors.torch import load_file, save_file

from kernelviz_callback import (
    FilterMeasures,
    Probe,
    Snapshot,
    kernel_health,
    list_snapshots,
    load_snapshot,
    make_chart,
    open_checkpoint,
    save_snapshot,
)
from kernelviz_callback.cli import main
from kernelviz_callback.snapshots.names import set_aside, snapshot_name
from kernelviz_callback.snapshots.probe_file import load_saved_probe, save_probe


@pytest.fixture
def snapshot() -> Snapshot:
    return example_snapshot()


def test_a_snapshot_is_read_back_bit_for_bit(snapshot: Snapshot, tmp_path: Path) -> None:
    path = save_snapshot(snapshot, tmp_path / "made" / "on the way")
    assert path.name == "step-00000128.safetensors"
    read = load_snapshot(path)
    for name, weight in snapshot.weights.items():
        assert read.weights[name].dtype == torch.float32
        assert torch.equal(read.weights[name].view(torch.int32), weight.view(torch.int32))
    for field in (
        "step",
        "epoch",
        "wall_time",
        "geometry",
        "probe_name",
        "probe_digest",
        "versions",
    ):
        assert getattr(read, field) == getattr(snapshot, field)


def test_other_safetensors_readers_can_open_the_file(snapshot: Snapshot, tmp_path: Path) -> None:
    tensors = load_file(save_snapshot(snapshot, tmp_path))
    assert set(tensors) == {"net.conv/weight", "other/weight"}


def test_a_file_of_the_same_step_is_replaced_without_a_temporary_file(
    snapshot, tmp_path: Path
) -> None:
    save_snapshot(snapshot, tmp_path)
    save_snapshot(snapshot, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000128.safetensors"]


def test_a_failed_write_leaves_no_file(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "step-00000128.safetensors").mkdir()  # a rename onto it must fail
    with pytest.raises(OSError, match="step-00000128"):
        save_snapshot(snapshot, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000128.safetensors"]


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_the_error_names_a_damaged_file(snapshot: Snapshot, tmp_path: Path, cut: int) -> None:
    path = save_snapshot(snapshot, tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"step-00000128.safetensors is not a complete"):
        load_snapshot(path)


def test_files_that_are_not_snapshots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_snapshot(tmp_path / "nowhere.safetensors")
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="but not a kernelviz snapshot"):
        load_snapshot(tmp_path / "other.safetensors")
    newer = {"kernelviz": json.dumps({"schema_version": 99})}
    save_file({"w": torch.zeros(1)}, tmp_path / "newer.safetensors", newer)
    with pytest.raises(ValueError, match=r"snapshot format 99.*upgrade"):
        load_snapshot(tmp_path / "newer.safetensors")


def test_a_remote_folder_is_written_and_read(snapshot: Snapshot) -> None:
    folder = "memory://bucket/kernelviz"
    for step in (1, 2):
        path = save_snapshot(replace(snapshot, step=step), folder)
    assert list(list_snapshots(folder)) == [1, 2]
    assert torch.equal(load_snapshot(str(path)).weights["other"], snapshot.weights["other"])
    [moved] = set_aside(folder, after=1)
    assert moved.name == snapshot_name(2)
    assert list(list_snapshots(folder)) == [1]
    save_probe(Probe(make_chart(32), "chart"), folder)
    assert torch.equal(load_saved_probe(folder).image, make_chart(32))


def test_the_record_of_a_layer_is_what_was_saved(snapshot: Snapshot, tmp_path: Path) -> None:
    health = kernel_health(snapshot.weights["net.conv"], "net.conv")
    path = save_snapshot(replace(snapshot, health={"net.conv": health}), tmp_path)
    checkpoint = open_checkpoint(path)
    record = checkpoint.read_record("net.conv")
    assert record is not None
    assert (record.wall_time, record.probe_digest) == (1234.5, "abc")
    assert record.health is not None
    assert record.health.verdicts == health.verdicts
    for measure in fields(FilterMeasures):
        saved, read = (getattr(h.filters, measure.name) for h in (health, record.health))
        assert torch.equal(saved.nan_to_num(-7), read.nan_to_num(-7))
    other = checkpoint.read_record("other")
    assert other is not None
    assert other.health is None
    save_file({"conv.weight": torch.zeros(2, 1, 3, 3)}, tmp_path / "other.safetensors")
    assert open_checkpoint(tmp_path / "other.safetensors").read_record() is None


WRONG: list[tuple[str, Any]] = [
    ("probe", 7),
    ("probe", {"name": "chart", "digest": [1]}),
    ("wall_time", 10**400),
    ("wall_time", {}),
    ("health", 3),
    ("health totals drift", [0.1]),
    ("health totals drift", "0.1"),
    ("health totals", []),
    ("health shape", [9, 9]),
    ("health shape", 3),
    ("health verdicts", [{"filter": 10**6, "name": "noise-like", "reason": ""}]),
    ("health verdicts", [{"filter": 0, "name": "tired", "reason": ""}]),
    ("health verdicts", [{"filter": 0, "name": [], "reason": ""}]),
    ("health verdicts", [7]),
    ("health absent", [1]),
    ("health false_alarm_rate", None),
]


@pytest.mark.parametrize(("place", "value"), WRONG)
def test_a_description_with_other_types_is_refused_in_one_line(
    place: str, value: Any, snapshot: Snapshot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a tool that writes safetensors files may leave it, or somebody who wants us to fail."""
    health = kernel_health(snapshot.weights["net.conv"], "net.conv")
    path = Path(str(save_snapshot(replace(snapshot, health={"net.conv": health}), tmp_path)))
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header["__metadata__"]["kernelviz"])
    first, *rest = place.split()
    holder: Any = description
    for key in ["health", "net.conv", *rest[:-1]] if rest else []:
        holder = holder[key]
    holder[rest[-1] if rest else first] = value
    header["__metadata__"]["kernelviz"] = json.dumps(description)
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])
    with pytest.raises(ValueError, match=rf"^{path}[^\n]*$"):
        load_snapshot(path)
    assert main(["show", str(path), "--layer", "net.conv", "-o", str(tmp_path / "a.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kernelviz: {path}: ")
    assert len(line) < len(str(path)) + 200


def test_the_record_of_a_newer_format_is_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    path = Path(str(save_snapshot(snapshot, tmp_path)))
    content = path.read_bytes()
    old, new = rb"\"schema_version\": 1,", rb"\"schema_version\": 9,"
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    checkpoint = open_checkpoint(path)
    with pytest.raises(ValueError, match=rf"^{path}: it has snapshot format 9; .*upgrade"):
        checkpoint.read_record("other")


def test_a_snapshot_is_printed_in_a_few_lines() -> None:
    layers = {"conv": torch.zeros(16, 3, 5, 5), "other": torch.ones(1, 1, 31)}
    health = {"conv": kernel_health(layers["conv"])}
    lines = repr(Snapshot(7, 2, 0.0, layers, {}, health=health)).splitlines()
    assert lines[0] == "Snapshot of step 7, epoch 2"
    assert lines[1:] == ["  conv: 16 filters 3x5x5, 16 with a verdict", "  other: 1 filter 1x31"]
