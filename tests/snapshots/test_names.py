"""Names of snapshot files: list them, and move those after a step."""

from dataclasses import replace
from pathlib import Path

import pytest
from example_snapshot import example_snapshot

from kernelviz_callback import Snapshot, list_snapshots, save_snapshot
from kernelviz_callback.snapshots.names import (
    picture_stem,
    set_aside,
    snapshot_name,
    snapshot_step,
)


@pytest.fixture
def snapshot() -> Snapshot:
    return example_snapshot()


def test_the_step_is_read_back_from_the_name() -> None:
    for step in (0, 7, 123456789):
        assert snapshot_step(f"runs/kernelviz/{snapshot_name(step)}") == step
    for other in ("step-7.safetensors", "kernels-step-00000007.safetensors", "step-00000007.png"):
        assert snapshot_step(other) is None


def test_the_snapshots_of_a_folder_are_listed_by_step(snapshot, tmp_path: Path) -> None:
    for step in (300, 2, 123456789):
        save_snapshot(replace(snapshot, step=step), tmp_path)
    (tmp_path / ".step-00000007.safetensors.1.tmp").write_bytes(b"half")
    (tmp_path / "step-7.txt").touch()
    assert list(list_snapshots(tmp_path)) == [2, 300, 123456789]
    assert list_snapshots(tmp_path / "nowhere") == {}


def test_files_after_a_step_are_moved_into_a_subfolder(snapshot: Snapshot, tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save_snapshot(replace(snapshot, step=step), tmp_path)
        (tmp_path / f"kernels-conv-step-{step:08d}.png").write_bytes(b"picture")
    moved = [tmp_path / "cut-off-1" / snapshot_name(step) for step in (4, 6)]
    assert set_aside(tmp_path, after=2) == moved
    assert set_aside(tmp_path, after=2) == []
    assert list(list_snapshots(tmp_path)) == [2]
    assert list(list_snapshots(tmp_path / "cut-off-1")) == [4, 6]
    assert len(list((tmp_path / "cut-off-1").glob("*.png"))) == 2
    save_snapshot(replace(snapshot, step=4), tmp_path)
    assert set_aside(tmp_path, after=3) == [tmp_path / "cut-off-2" / snapshot_name(4)]
    assert list(list_snapshots(tmp_path / "cut-off-2")) == [4]


def test_pictures_of_different_layers_have_different_names_of_bounded_length() -> None:
    layers = ["a/b", "a-b", "a b", "a\\b", "a\nb", "a:b", "a.b", "a~b", "а-b", "a-\udc80", "a-?"]
    layers += ["", "/", "..", "n" * 230, "n" * 231, "ы" * 230, "CON"]
    stems = {picture_stem(f"kernels/{layer}") for layer in layers}
    assert len(stems) == len(layers)
    for stem in stems:
        assert stem.isascii()
        assert stem.replace("~", "-").replace(".", "-").replace("-", "_").isidentifier()
        assert len(f"{stem}-step-00000000.png") < 144, "the limit of encrypted file systems"
    assert picture_stem("kernels/net.conv1") == "kernels-net.conv1", "as in version 1.0.0"
