"""Write, replace and move files at a path or URL, and check that a file can grow."""

import subprocess
import sys
from pathlib import Path

import pytest
from upath import UPath

from kernelviz_callback.storage import as_folder, check_can_grow, move, write_whole

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
