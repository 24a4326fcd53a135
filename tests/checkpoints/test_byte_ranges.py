"""Read ranges of bytes and tensors from a file."""

import zlib
from pathlib import Path

import pytest
import torch

from kernelviz_callback.checkpoints.byte_ranges import ByteRange, TensorBytes, contiguous_strides

CONTENT = bytes(range(200))


@pytest.fixture(params=["path", "content"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path | bytes:
    if request.param == "content":
        return CONTENT
    (tmp_path / "a.bin").write_bytes(CONTENT)
    return tmp_path / "a.bin"


@pytest.mark.parametrize("checksum", [None, zlib.crc32(CONTENT[20:120])])
def test_a_part_of_a_range_is_read(source: Path | bytes, checksum: int | None) -> None:
    stored = ByteRange(source, 20, 100, checksum)
    assert stored.read() == CONTENT[20:120]
    assert stored.read(5, 10) == CONTENT[25:35]
    assert stored.read(90) == CONTENT[110:120]


def test_ranges_outside_of_the_file_are_an_error(source: Path | bytes) -> None:
    for first, length in ((-1, 5), (0, -1), (95, 10)):
        with pytest.raises(ValueError, match="reach beyond"):
            ByteRange(source, 20, 100).read(first, length)
    for start, length in ((-5, 10), (150, 100)):
        with pytest.raises(ValueError, match="ends before the weights do"):
            ByteRange(source, start, length).read()


def test_a_wrong_checksum_is_an_error(source: Path | bytes) -> None:
    with pytest.raises(ValueError, match="checksum"):
        ByteRange(source, 20, 100, zlib.crc32(b"other")).read(0, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_strided_tensor_is_read_as_float32(dtype: torch.dtype) -> None:
    storage = torch.randn(4, 3, 5, 2, generator=torch.Generator().manual_seed(1)).to(dtype)
    content = storage.view(torch.uint8).numpy().tobytes()
    view = storage[1:].transpose(1, 2)
    stored = TensorBytes(
        ByteRange(content, 0, len(content)), dtype, view.shape, view.stride(), view.storage_offset()
    )
    read = stored.read()
    assert read.dtype == torch.float32
    assert read.is_contiguous()
    assert torch.equal(read, view.float())
    assert contiguous_strides(storage.shape) == list(storage.stride())


def test_impossible_shapes_are_an_error() -> None:
    storage = ByteRange(CONTENT, 0, len(CONTENT))
    for shape, strides, offset in (((2, 2), (2,), 0), ((2, -2), None, 0), ((2, 2), None, -1)):
        with pytest.raises(ValueError, match="impossible shape"):
            TensorBytes(storage, torch.float32, shape, strides, offset).read()
    with pytest.raises(ValueError, match="more than it has bytes"):
        TensorBytes(storage, torch.float32, (1000, 1000)).read()
