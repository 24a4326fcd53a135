"""Write, replace and move files at a path or URL, and reserve room for a file."""

import shutil
import sys
from pathlib import Path

import pytest
from upath import UPath

from kernelviz_callback.storage import as_folder, move, reserve, write_whole


@pytest.mark.parametrize("kind", ["path", "file://", "memory://"])
def test_files_are_written_replaced_and_moved(tmp_path: Path, kind: str) -> None:
    folder = as_folder(tmp_path if kind == "path" else f"{kind}{tmp_path}")
    assert isinstance(folder, UPath if kind == "memory://" else Path)
    path = folder / "a" / "b.txt"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    move(path, folder / "c" / "d.txt")
    assert not path.exists()
    assert (folder / "c" / "d.txt").read_bytes() == b"second"
    assert [p.name for p in (folder / "a").iterdir()] == []


def test_room_is_reserved_without_a_change_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"12345")
    reserve(path, 100_000)
    assert path.read_bytes() == b"12345"
    assert list(tmp_path.iterdir()) == [path]
    if sys.platform == "linux":
        assert path.stat().st_blocks * 512 >= 100_000
    reserve(tmp_path / "new" / "events", 10)  # a deleted folder is created again
    assert (tmp_path / "new" / "events").read_bytes() == b""


def test_room_that_the_disk_does_not_have_is_an_error(small_disk: Path) -> None:
    path = small_disk / "events"
    path.write_bytes(b"12345")
    free = shutil.disk_usage(small_disk).free
    with pytest.raises(OSError, match="No space left"):
        reserve(path, free + 10**6)
    assert path.read_bytes() == b"12345"
    assert shutil.disk_usage(small_disk).free == free
