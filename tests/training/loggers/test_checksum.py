"""Event files have the same bytes with checksums in C as with those of TensorBoard."""

import io
import random
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback.training.loggers import checksum
from kernelviz_callback.training.loggers.checksum import use_fast_checksums, write_record


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4096, 65_537])
def test_a_record_has_the_bytes_that_tensorboard_writes(size: int) -> None:
    content = random.Random(size).randbytes(size)
    ours, theirs = io.BytesIO(), io.BytesIO()
    write_record(ours, content)
    RecordWriter(theirs).write(content)
    assert ours.getvalue() == theirs.getvalue()


def test_a_writer_goes_on_in_its_own_file(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as board, SummaryWriter(tmp_path / "other") as other:
        board.add_scalar("loss", 1.0, 0)
        writer = board._get_file_writer().event_writer
        use_fast_checksums(writer)
        use_fast_checksums(writer)
        board.add_scalar("loss", 2.0, 1)
        assert writer._async_writer._writer.write.func is write_record
        untouched = other._get_file_writer().event_writer._async_writer._writer
        assert untouched.write.__func__ is RecordWriter.write
    [path] = tmp_path.glob("events*")
    read = [
        v.tensor.float_val or v.simple_value
        for e in EventFileLoader(str(path)).Load()
        for v in e.summary.value
    ]
    assert len(read) == 2


@pytest.mark.parametrize("writer", [None, object()])
def test_an_unknown_writer_is_left_alone(writer: object) -> None:
    use_fast_checksums(writer)


def test_without_the_library_tensorboard_computes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checksum, "_HAS_C", False)
    with SummaryWriter(tmp_path) as board:
        writer = board._get_file_writer().event_writer
        use_fast_checksums(writer)
        assert "write" not in vars(writer._async_writer._writer)
