import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kernelviz_callback import (
    Geometry,
    Probe,
    Snapshot,
    list_snapshots,
    load_snapshot,
    make_chart,
    save_snapshot,
)
from kernelviz_callback.snapshots.names import set_aside
from kernelviz_callback.snapshots.probe_file import load_saved_probe, save_probe


@pytest.fixture
def snapshot() -> Snapshot:
    weights = torch.randn(4, 3, 5, 5)
    weights[0, 0, 0, :3] = torch.tensor([torch.nan, torch.inf, -0.0])
    return Snapshot(
        step=128,
        epoch=3,
        wall_time=1234.5,
        weights={"net.conv": weights, "other": torch.randn(2, 1, 1, 1)},
        geometry={
            "net.conv": Geometry("Conv2d", (2, 2), (3, 3), (1, 1), 1),
            "other": Geometry("Conv2d", (1, 1), "same", (2, 2), 1),
        },
        probe_name="chart",
        probe_digest="abc",
    )


def test_it_reads_back_bit_for_bit(snapshot: Snapshot, tmp_path: Path) -> None:
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


def test_any_safetensors_reader_opens_it(snapshot: Snapshot, tmp_path: Path) -> None:
    tensors = load_file(save_snapshot(snapshot, tmp_path))
    assert set(tensors) == {"net.conv/weight", "other/weight"}


def test_a_step_is_replaced_and_no_temporary_file_stays(snapshot, tmp_path: Path) -> None:
    save_snapshot(snapshot, tmp_path)
    save_snapshot(snapshot, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000128.safetensors"]


def test_a_failed_write_leaves_nothing(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "step-00000128.safetensors").mkdir()  # a rename onto it must fail
    with pytest.raises(OSError, match="step-00000128"):
        save_snapshot(snapshot, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000128.safetensors"]


def test_the_snapshots_of_a_folder_are_listed_in_order(snapshot, tmp_path: Path) -> None:
    for step in (300, 2, 123456789):
        save_snapshot(replace(snapshot, step=step), tmp_path)
    (tmp_path / ".step-00000007.safetensors.1.tmp").write_bytes(b"half")
    (tmp_path / "step-7.txt").touch()
    assert list(list_snapshots(tmp_path)) == [2, 300, 123456789]
    assert list_snapshots(tmp_path / "nowhere") == {}


def test_what_a_cut_off_attempt_left_is_set_aside(snapshot: Snapshot, tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save_snapshot(replace(snapshot, step=step), tmp_path)
        (tmp_path / f"kernels-conv-step-{step:08d}.png").write_bytes(b"picture")
    assert set_aside(tmp_path, after=2) == [4, 6]
    assert set_aside(tmp_path, after=2) == []
    assert list(list_snapshots(tmp_path)) == [2]
    assert list(list_snapshots(tmp_path / "cut-off-1")) == [4, 6]
    assert len(list((tmp_path / "cut-off-1").glob("*.png"))) == 2
    save_snapshot(replace(snapshot, step=4), tmp_path)
    assert set_aside(tmp_path, after=3) == [4]
    assert list(list_snapshots(tmp_path / "cut-off-2")) == [4]


def test_a_remote_folder(snapshot: Snapshot) -> None:
    folder = "memory://bucket/kernelviz"
    for step in (1, 2):
        path = save_snapshot(replace(snapshot, step=step), folder)
    assert list(list_snapshots(folder)) == [1, 2]
    assert torch.equal(load_snapshot(str(path)).weights["other"], snapshot.weights["other"])
    assert set_aside(folder, after=1) == [2]
    assert list(list_snapshots(folder)) == [1]
    save_probe(Probe(make_chart(32), "chart"), folder)
    assert torch.equal(load_saved_probe(folder).image, make_chart(32))


def test_a_second_probe_does_not_replace_the_first(tmp_path: Path) -> None:
    first, second = Probe(make_chart(32), "chart"), Probe(torch.rand(3, 4, 4), "tensor")
    for probe in (first, second, first):
        save_probe(probe, tmp_path)
    assert load_saved_probe(tmp_path).digest == first.digest
    for probe in (first, second):
        assert load_saved_probe(tmp_path, probe.digest).digest == probe.digest
    assert load_saved_probe(tmp_path, "f" * 64) is None


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_damaged_file_is_named(snapshot: Snapshot, tmp_path: Path, cut: int) -> None:
    path = save_snapshot(snapshot, tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"step-00000128.safetensors is not a complete"):
        load_snapshot(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_snapshot(tmp_path / "nowhere.safetensors")
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="but not a kernelviz snapshot"):
        load_snapshot(tmp_path / "other.safetensors")
    newer = {"kernelviz": json.dumps({"schema_version": 99})}
    save_file({"w": torch.zeros(1)}, tmp_path / "newer.safetensors", newer)
    with pytest.raises(ValueError, match=r"snapshot format 99.*upgrade"):
        load_snapshot(tmp_path / "newer.safetensors")


@pytest.mark.parametrize("image", [make_chart(32), torch.randn(4, 5, 6)], ids=["chart", "floats"])
def test_the_probe_reads_back_exactly(image, tmp_path: Path) -> None:
    probe = Probe(image, "some name")
    assert load_saved_probe(tmp_path) is None
    save_probe(probe, tmp_path)
    read = load_saved_probe(tmp_path)
    assert read is not None
    assert (read.name, read.digest) == (probe.name, probe.digest)
    (tmp_path / "probe.safetensors").write_bytes(b"damaged")
    assert load_saved_probe(tmp_path) is None
