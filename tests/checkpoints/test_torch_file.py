"""Read files of torch.save in the old and new formats, also damaged ones."""

import random
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kernelviz_callback.checkpoints.checkpoint import load_weights, open_checkpoint
from kernelviz_callback.checkpoints.torch_file import open_torch_file
from kernelviz_callback.model.weights import effective_weight


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 8, 5), more=nn.Conv2d(8, 4, 3), head=nn.Linear(4, 2))
    )


def save_legacy(content: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a whole module stores its source
        torch.save(content, path, _use_new_zipfile_serialization=False)


def save_without_checksums(content: Any, path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, path)
    finally:
        torch.serialization.set_crc32_options(True)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def position_of(tensor: Tensor, path: Path) -> int:
    """Return where the bytes of a tensor begin in a file. They occur once."""
    content, numbers = path.read_bytes(), tensor.detach().contiguous().numpy().tobytes()
    assert content.count(numbers) == 1
    return content.index(numbers)


def error_or_right_weights(path: Path) -> str:
    """Return the error message for a damaged file, empty if it still gives the right weights."""
    try:
        assert torch.equal(load_weights(path, "conv"), network().conv.weight)
    except ValueError as error:
        message, _, candidates = str(error).partition("\n")
        assert message.startswith(f"{path}: ")
        assert not candidates or "found no single layer" in message
        return message
    return ""


SAVERS = [torch.save, save_legacy, save_without_checksums]


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("whole", [False, True], ids=["state dict", "module"])
def test_every_format_of_torch_save_is_read(
    save: Callable[..., None], whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, path = network(), tmp_path / "net.pt"
    save(net if whole else net.state_dict(), path)
    monkeypatch.setattr(torch, "load", None)
    checkpoint = open_checkpoint(path)
    assert list(checkpoint.layers) == ["conv", "more"]
    assert torch.equal(checkpoint.read(), net.conv.weight)
    assert torch.equal(checkpoint.read("more"), net.more.weight)


@pytest.mark.parametrize("save", [torch.save, save_legacy])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_every_floating_point_type_is_read(
    dtype: torch.dtype, save: Callable[..., None], tmp_path: Path
) -> None:
    weight = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(1)).to(dtype)
    if save is save_legacy and dtype.itemsize == 1:
        return  # the old format has no storage of this type
    save({"conv.weight": weight}, tmp_path / "a.pt")
    read = load_weights(tmp_path / "a.pt")
    assert read.dtype == torch.float32
    assert torch.equal(read, weight.float())


@pytest.mark.parametrize("save", SAVERS)
def test_views_and_strided_tensors_are_read(save: Callable[..., None], tmp_path: Path) -> None:
    big = torch.randn(20, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    views = {
        "part.weight": big[3:9],
        "steps.weight": big[::2],
        "last.weight": big[2:6].to(memory_format=torch.channels_last),
        "turned.weight": big.transpose(0, 1),
        "repeated.weight": big[:1].expand(4, -1, -1, -1),
        "parameter.weight": nn.Parameter(big[1:2]),
    }
    save(views, tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    for name, view in views.items():
        read = checkpoint.read(name.removesuffix(".weight"))
        assert torch.equal(read, view)
        assert read.is_contiguous()


def test_changing_the_result_does_not_change_the_next_result(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    checkpoint.read().zero_()
    assert torch.equal(checkpoint.read(), network().conv.weight)


def test_subclasses_of_tensor_are_read(tmp_path: Path) -> None:
    class Marked(Tensor): ...

    globals()["Marked"] = Marked
    Marked.__qualname__ = "Marked"
    weight = torch.randn(8, 3, 5, 5)
    torch.save({"conv.weight": weight.clone().as_subclass(Marked)}, tmp_path / "a.pt")
    assert torch.equal(load_weights(tmp_path / "a.pt"), weight)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(protocol: int, tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "a.pt", pickle_protocol=protocol)
    assert torch.equal(load_weights(tmp_path / "a.pt"), network().conv.weight)


def test_a_file_without_convolution_is_an_error(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt: found no 2-D convolution"):
        load_weights(tmp_path / "a.pt")


def test_damaged_weights_with_a_checksum_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(network().state_dict(), path)
    at = position_of(network().conv.weight, path)
    flip(path, at + 100)
    with pytest.raises(ValueError, match=r"a\.pt: damaged: .* checksum they were written with$"):
        load_weights(path)
    assert torch.equal(load_weights(path, "more"), network().more.weight), (
        "this layer is not damaged"
    )
    save_without_checksums(network().state_dict(), path)
    flip(path, position_of(network().more.weight, path) + 100)
    assert torch.equal(load_weights(path), network().conv.weight)


def test_other_damage_has_no_effect_or_is_a_one_line_error(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(network().state_dict(), path)
    whole = path.read_bytes()
    at = position_of(network().conv.weight, path)
    rng = random.Random(3)
    seen = set()
    for _ in range(200):
        flipped = rng.randrange(len(whole))
        path.write_bytes(whole)
        flip(path, flipped)
        message = error_or_right_weights(path)
        seen.add(message)
        assert message or not at <= flipped < at + network().conv.weight.nbytes
    assert "" in seen
    assert len(seen) > 2


def _zip(path: Path, records: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def _torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(nn.Conv2d(3, 8, 5)), str(path))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b""), "it is empty"),
        (
            lambda p: p.write_text("hello, world"),
            "a text file, not a checkpoint",
        ),
        (lambda p: p.write_bytes(b"\x80\x02K\x01"), "damaged: its pickle"),
        (
            lambda p: p.write_bytes(b"\x80\x02K\x01." * 4),
            "a plain pickle, not a file of torch.save",
        ),
        (lambda p: _zip(p, {"a/b.txt": b"x"}), "it has no data.pkl"),
        (lambda p: _zip(p, {"a/data.pkl": b"0" * 9999}, zipfile.ZIP_DEFLATED), "is compressed"),
        (lambda p: _zip(p, {"a/data.pkl": b"N.", "b/data.pkl": b"N."}), "two records 'data.pkl'"),
        (
            lambda p: _zip(p, {"a/data.pkl": b"N.", "a/byteorder": b"big"}),
            "only little-endian",
        ),
        (_torchscript, "a TorchScript archive"),
    ],
)
def test_files_that_are_not_checkpoints_are_an_error(
    write: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    write(path)
    with pytest.raises(ValueError, match=rf"^{path}: .*{message}[^\n]*$"):
        open_checkpoint(path)


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_truncated_files_are_an_error(save: Callable[..., None], tmp_path: Path) -> None:
    save(network().state_dict(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    path = tmp_path / "a.pt"
    for size in range(1, len(whole) - 1, 97):
        path.write_bytes(whole[:size])
        assert error_or_right_weights(path) or save is save_legacy, (
            "in the old format, the weights are before the end"
        )


def test_a_second_zip_directory_is_not_executed(tmp_path: Path) -> None:
    """Readers of zip files disagree on which directory to use."""
    path = tmp_path / "a.pt"
    torch.save(network().state_dict(), path)
    other = _zip(tmp_path / "b.zip", {"a/data.pkl": b"cos\nsystem\nX\1\0\0\0x\x85R."})
    path.write_bytes(path.read_bytes() + other.read_bytes())
    with pytest.raises(ValueError, match=r"a\.pt: (hostile: it calls 'os.system'|damaged)"):
        load_weights(path)


def test_a_file_that_changes_after_opening_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(network().state_dict(), path)
    checkpoint = open_checkpoint(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"a.pt: damaged: it ends before the weights do"):
        checkpoint.read()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"a.pt"):
        checkpoint.read()


def test_a_tensor_larger_than_its_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"conv.weight": torch.zeros(1).expand(999, 3, 99, 99)}, path)
    with pytest.raises(ValueError, match=r"claims 29,373,597.* weights, more than it has bytes"):
        load_weights(path)
    save_legacy({"conv.weight": torch.zeros(8, 1, 1, 1)}, path)
    content = path.read_bytes()
    old = b"(K\x08K\x01K\x01K\x01t"
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, b"(M\xff\x1fK\x01K\x01K\x01t"))
    with pytest.raises(ValueError, match=r"a.pt: damaged"):
        load_weights(path)


def test_too_large_storages_in_an_old_file_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_legacy({"conv.weight": network().conv.weight}, path)
    at = position_of(network().conv.weight, path) - 8
    content = bytearray(path.read_bytes())
    for count in (-1, 1 << 40, (1 << 63) - 1):
        content[at : at + 8] = struct.pack("<q", count)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.pt: damaged"):
            load_weights(path)


def test_objects_in_a_file_become_placeholders(tmp_path: Path) -> None:
    torch.save({"path": Path("x"), "size": torch.Size([1])}, tmp_path / "a.pt")
    content = open_torch_file(tmp_path / "a.pt").content
    assert content["path"].name.startswith("pathlib.")


def test_weights_of_a_normalized_module_are_computed(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = nn.utils.weight_norm(nn.Conv2d(3, 8, 5))
    torch.save(nn.Sequential(net), tmp_path / "a.pt")
    torch.testing.assert_close(load_weights(tmp_path / "a.pt", "0"), effective_weight(net))
