"""Write, replace and move files at a path or URL, and reserve room for a file."""

import os
import secrets
import shutil
import sys
from pathlib import Path

import pytest
from conftest import fill
from upath import UPath

from kernelviz_callback.storage import (
    as_absolute,
    as_folder,
    move,
    open_new,
    read_whole,
    replace_when_complete,
    reserve,
    write_whole,
)


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


def write_completely(path: Path, content: bytes) -> None:
    with replace_when_complete(path) as temporary:
        temporary.write_bytes(content)


def test_a_file_that_has_no_room_is_named(small_disk: Path) -> None:
    path = small_disk / "out.png"
    path.write_bytes(b"before")
    fill(small_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        write_completely(path, bytes(10**6))
    assert str(caught.value) == f"{path}: it cannot be written: No space left on device"
    assert path.read_bytes() == b"before"


def test_an_error_of_another_file_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"not a picture$"), replace_when_complete(tmp_path / "a.png"):
        raise OSError("not a picture")


@pytest.mark.parametrize("write", [write_whole, write_completely])
def test_a_link_at_the_temporary_name_is_not_followed(tmp_path: Path, monkeypatch, write) -> None:
    """Someone has guessed the random name."""
    precious, path = tmp_path / "precious", tmp_path / "runs" / "out.tmp"
    precious.write_bytes(b"a file of the user")
    path.parent.mkdir()
    monkeypatch.setattr(secrets, "token_hex", lambda count: "guessed")
    (path.parent / ".guessed.tmp").symlink_to(precious)
    with pytest.raises(OSError, match="File exists"):
        write(path, b"ours")
    assert precious.read_bytes() == b"a file of the user"


@pytest.mark.parametrize("write", [write_whole, write_completely])
def test_a_link_at_the_name_of_a_file_is_replaced(tmp_path: Path, write) -> None:
    precious, path = tmp_path / "precious", tmp_path / "out.png"
    precious.write_bytes(b"a file of the user")
    path.symlink_to(precious)
    write(path, b"ours")
    assert (precious.read_bytes(), path.read_bytes()) == (b"a file of the user", b"ours")
    assert not path.is_symlink()


@pytest.mark.parametrize("write", [write_whole, write_completely])
def test_files_have_long_names_and_the_permissions_of_the_umask(tmp_path: Path, write) -> None:
    path = tmp_path / ("x" * 251 + ".png")
    before = os.umask(0o022)
    try:
        write(path, b"ours")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    with pytest.raises(FileExistsError):
        open_new(tmp_path / "link")
    assert not (tmp_path / "absent").exists()


def test_only_a_small_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert read_whole(tmp_path / "small", 4) == b"1234"
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_whole(tmp_path / "small", 3)
    for name in ("link", "pipe", "."):
        with pytest.raises(ValueError, match="not a file"):
            read_whole(tmp_path / name, 4)
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "absent", 4)


def test_an_absolute_path_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_absolute("runs") == tmp_path / "runs"
    assert str(as_absolute("memory://runs")) == "memory://runs"
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert as_absolute("runs") == Path("runs")
    assert as_absolute(tmp_path) == tmp_path
