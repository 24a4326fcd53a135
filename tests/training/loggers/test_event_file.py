"""The event file that TensorBoard's thread and this package write to together."""

import io
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import fill
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback.training.loggers import event_file
from kernelviz_callback.training.loggers.event_file import event_file_of, write_record


def event(step: int, size: int = 100) -> bytes:
    value = Summary.Value(tag="ours", simple_value=step)
    value.metadata.plugin_data.content = b"x" * size
    return Event(step=step, summary=Summary(value=[value])).SerializeToString()


def steps_in(folder: Path) -> dict[str, list[int]]:
    [path] = folder.glob("events*")
    found: dict[str, list[int]] = {}
    for read in EventFileLoader(str(path)).Load():
        for value in read.summary.value:
            found.setdefault(value.tag, []).append(read.step)
    return found


def shared(board: SummaryWriter) -> Any:
    return event_file_of(board._get_file_writer().event_writer)


@pytest.fixture
def largest_file() -> Iterator[Any]:
    """Let the system forbid larger files: a write then fails after its first bytes."""
    resource = pytest.importorskip("resource", reason="Windows has no limits of resources")

    def limit(size: int | None) -> None:
        most = resource.RLIM_INFINITY if size is None else size
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    yield limit
    limit(None)


@pytest.mark.parametrize("has_c", [True, False])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4096, 65_537])
def test_a_record_has_the_bytes_that_tensorboard_writes(
    size: int, has_c: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "HAS_C", has_c and event_file.HAS_C)
    content = random.Random(size).randbytes(size)
    ours, theirs = io.BytesIO(), io.BytesIO()
    write_record(ours, content)
    RecordWriter(theirs).write(content)
    assert ours.getvalue() == theirs.getvalue()


def test_records_of_both_are_read_back_in_order(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "a") as board, SummaryWriter(tmp_path / "b") as other:
        for step in range(5):
            board.add_scalar("loss", 1.0, step)
            shared(board).append([event(step), event(step)])
        assert shared(board) is shared(board)
        untouched = other._get_file_writer().event_writer._async_writer._writer
        assert "write" not in vars(untouched)
    assert steps_in(tmp_path / "a") == {
        "loss": [0, 1, 2, 3, 4],
        "ours": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    }


@pytest.mark.parametrize("writer", [None, object()])
def test_an_unknown_writer_is_left_alone(writer: object) -> None:
    assert event_file_of(writer) is None


def test_a_record_that_fails_half_way_damages_nothing(tmp_path: Path, largest_file: Any) -> None:
    with SummaryWriter(tmp_path) as board:
        board.add_scalar("loss", 1.0, 0)
        shared(board).append([event(0)])
        board.flush()
        [path] = tmp_path.glob("events*")
        before = path.stat().st_size
        largest_file(before + 50_000)
        with pytest.raises(OSError, match="File too large"):
            shared(board).append([event(1, 30_000), event(2, 30_000)])
        board.add_scalar("loss", 1.0, 1)
        board.flush()
        largest_file(None)
        shared(board).append([event(3)])
        board.add_scalar("loss", 1.0, 2)
    assert steps_in(tmp_path) == {"loss": [0, 1, 2], "ours": [0, 1, 3]}


def test_a_file_that_could_not_be_cut_at_once_is_cut_before_the_next_record(
    tmp_path: Path, largest_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("read-only for a moment")

    with SummaryWriter(tmp_path) as board:
        shared(board).append([event(0)])
        [path] = tmp_path.glob("events*")
        whole = path.stat().st_size
        largest_file(whole + 50_000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "truncate", refuse)
            with pytest.raises(OSError, match="File too large"):
                shared(board).append([event(1, 80_000)])
        assert path.stat().st_size > whole
        largest_file(None)
        board.add_scalar("loss", 1.0, 2)
    assert steps_in(tmp_path) == {"ours": [0], "loss": [2]}


def test_room_is_reserved_and_the_file_is_not_longer(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as board:
        shared(board).append([event(0)])
        [path] = tmp_path.glob("events*")
        found = path.stat()
    assert found.st_size < 1000
    if sys.platform == "linux":
        assert found.st_blocks * 512 >= event_file.SPARE_BYTES


def test_a_deleted_folder_is_made_again(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "log") as board:
        shared(board).append([event(0)])
        [path] = (tmp_path / "log").glob("events*")
        path.unlink()
        path.parent.rmdir()
        shared(board).append([event(1)])
        board.add_scalar("loss", 1.0, 2)
    assert steps_in(tmp_path / "log") == {"ours": [1], "loss": [2]}


def test_on_a_full_disk_our_records_fail_and_those_of_the_training_do_not(
    small_disk: Path,
) -> None:
    with SummaryWriter(small_disk / "log") as board:
        shared(board).append([event(0, 50_000)])
        filler = fill(small_disk)
        for step in range(600):  # more than a page of them
            board.add_scalar("loss", 1.0, step)
        with pytest.raises(OSError, match="No space left"):
            shared(board).append([event(1, 100_000)])
        board.flush()
        filler.unlink()
        shared(board).append([event(2, 100_000)])
    assert steps_in(small_disk / "log") == {"ours": [0, 2], "loss": list(range(600))}


def test_on_a_read_only_disk_our_records_fail_and_the_writer_lives_on(small_disk: Path) -> None:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    with SummaryWriter(small_disk / "log") as board:
        shared(board).append([event(0)])
        board.flush()
        remount("ro")
        with pytest.raises(OSError, match="Read-only"):
            shared(board).append([event(1)])
        remount("rw")
        shared(board).append([event(2)])
        board.add_scalar("loss", 1.0, 3)
    assert steps_in(small_disk / "log") == {"ours": [0, 2], "loss": [3]}
