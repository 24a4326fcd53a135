import json
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
from kernelviz_callback.snapshot import load_saved_probe, run_folder, save_probe


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
    from dataclasses import replace

    for step in (300, 2, 123456789):
        save_snapshot(replace(snapshot, step=step), tmp_path)
    (tmp_path / ".step-00000007.safetensors.1.tmp").write_bytes(b"half")
    (tmp_path / "step-7.txt").touch()
    assert list(list_snapshots(tmp_path)) == [2, 300, 123456789]
    assert list_snapshots(tmp_path / "nowhere") == {}


def test_a_fresh_run_never_shares_a_folder(snapshot: Snapshot, tmp_path: Path) -> None:
    first = run_folder(tmp_path, fresh=True)
    assert first == tmp_path / "kernelviz"
    save_snapshot(snapshot, first)
    second = run_folder(tmp_path, fresh=True)
    assert second == tmp_path / "kernelviz-2"
    save_snapshot(snapshot, second)
    assert run_folder(tmp_path, fresh=True) == tmp_path / "kernelviz-3"
    assert run_folder(tmp_path, fresh=False) == first


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_a_damaged_file_is_named(snapshot: Snapshot, tmp_path: Path, cut: int) -> None:
    path = save_snapshot(snapshot, tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"step-00000128.safetensors is no whole"):
        load_snapshot(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_snapshot(tmp_path / "nowhere.safetensors")
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="but no kernelviz snapshot"):
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
