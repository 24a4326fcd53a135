"""Names of snapshot files: list them, and move those after a step."""

from dataclasses import replace
from pathlib import Path

import pytest
from example_snapshot import example_snapshot

from kernelviz_callback import Snapshot, list_snapshots, save_snapshot
from kernelviz_callback.snapshots.names import (
    plain_tags,
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
    assert set_aside(tmp_path, after=2) == [4, 6]
    assert set_aside(tmp_path, after=2) == []
    assert list(list_snapshots(tmp_path)) == [2]
    assert list(list_snapshots(tmp_path / "cut-off-1")) == [4, 6]
    assert len(list((tmp_path / "cut-off-1").glob("*.png"))) == 2
    save_snapshot(replace(snapshot, step=4), tmp_path)
    assert set_aside(tmp_path, after=3) == [4]
    assert list(list_snapshots(tmp_path / "cut-off-2")) == [4]


LAYERS = (
    *("a/b", "a-b", "a b", "a\\b", "a\nb", "a:b", "a.b", "a~b", "а-b", "a-\udc80", "a-?"),
    *("", "/", "..", "n" * 130, "n" * 131, "ы" * 230, "CON", "net.Conv", "net.conv", "NET.conv"),
    *("ß", "ss", "N" * 130, "A/b"),
)


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("longest", [72, 110])
def test_tags_of_different_layers_differ_also_without_case(ascii_only: bool, longest: int) -> None:
    tags = [f"kernels/{layer}" for layer in LAYERS]
    plain = plain_tags(tags, ascii_only=ascii_only, longest=longest)
    assert list(plain) == tags
    assert len({name.casefold() for name in plain.values()}) == len(LAYERS)
    for name in plain.values():
        layer = name.removeprefix("kernels/")
        assert all(character.isalnum() or character in "_.-" for character in layer)
        assert layer.isascii() or not ascii_only
        assert len(layer.encode()) <= longest


def test_a_tag_does_not_depend_on_the_order_of_the_layers() -> None:
    tags = [f"kernels/{layer}" for layer in LAYERS]
    forwards = plain_tags(tags, ascii_only=True)
    assert plain_tags(tags[::-1], ascii_only=True) == forwards


def test_usual_tags_stay_as_they_are() -> None:
    """As in version 1.0.0."""
    tags = ["probe", "kernels/net.conv1", "film/Conv2d_1a_3x3.conv", f"responses/{'n' * 110}"]
    tags += ["kernelviz/net.conv1/drift"]
    assert list(plain_tags(tags, ascii_only=True).values()) == tags


def test_the_kinds_of_a_layer_have_the_same_name_of_it() -> None:
    names = plain_tags(["kernels/a b", "film/a b", "kernelviz/a b/drift"], ascii_only=True).values()
    assert [name.split("/")[1] for name in names] == ["a-b-c8687a08aa5d6ed2"] * 3
