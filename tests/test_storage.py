"""Write, replace and move files at a path or URL, and check that a file can grow."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from upath import UPath

from kernelviz_callback.storage import (
    as_absolute,
    as_folder,
    check_can_grow,
    move,
    open_new,
    read_small,
    replace_when_complete,
    write_whole,
)

LIMITED = """
import resource, sys
from pathlib import Path
from kernelviz_callback.storage import check_can_grow
path = Path(sys.argv[1])
path.write_bytes(b"x" * 6000)
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
check_can_grow(path, 1900)
try:
    check_can_grow(path, 2100)
except OSError as error:
    print("refused", error.errno)
"""


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


def test_the_check_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"12345")
    check_can_grow(path, 10_000)
    assert path.read_bytes() == b"12345"
    assert list(tmp_path.iterdir()) == [path]
    check_can_grow(tmp_path / "new" / "events", 10)  # a deleted folder is created again
    assert (tmp_path / "new").is_dir()


def test_the_check_fails_at_the_limit_of_the_file_size(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "events")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("refused")
    assert (tmp_path / "events").stat().st_size == 6000


def write_completely(path: Path, content: bytes) -> None:
    with replace_when_complete(path) as temporary:
        temporary.write_bytes(content)


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
    assert read_small(tmp_path / "small", 4) == b"1234"
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_small(tmp_path / "small", 3)
    for name in ("link", "pipe", "."):
        with pytest.raises(ValueError, match="not a file"):
            read_small(tmp_path / name, 4)
    with pytest.raises(FileNotFoundError):
        read_small(tmp_path / "absent", 4)


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
