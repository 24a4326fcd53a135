"""Files of ``torch.save``: opened without executing anything, and without any class in them."""

import pickle
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kernelviz_callback.opening.pickle_survey import Filling, survey_pickle
from kernelviz_callback.opening.stand_ins import stand_in

# What a file of torch 1.5 or earlier consists of: a magic number, a protocol version, a description
# of the machine, the objects.
_LEGACY_PICKLES = 4


@dataclass(frozen=True, eq=False)
class TorchFile:
    """What a file of ``torch.save`` holds.

    Attributes:
        content: As it was given to ``torch.save``. Tensors of a file stay on the disk until they
            are looked at; objects of unknown classes are `StandIn`, or a plain dict or list where
            they are filled like one.
        checksums: (Bytes, CRC-32) of every record; None where it was written without.
    """

    content: Any
    checksums: frozenset[tuple[int, int]] | None

    def check(self, tensor: Tensor) -> None:
        """Raise a `ValueError` if the bytes of a tensor are not those that were written."""
        storage = tensor.untyped_storage()
        if self.checksums is None or storage.nbytes() == 0:
            return
        content = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        if (storage.nbytes(), zlib.crc32(content)) not in self.checksums:
            raise ValueError("damaged: its weights do not have the checksum they were written with")


def load_torch_file(file: Path | bytes) -> TorchFile:
    """Read a file of ``torch.save``, or the bytes of one.

    Raises:
        ValueError: If it is damaged, hostile, or none of ``torch.save``; the message is the reason.
        OSError: If it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols and deprecated storages
            if zipfile.is_zipfile(_stream(file)):
                return _load_zip(file)
            return _load_legacy(file)
    except OSError:
        raise
    except Exception as error:  # a damaged file may fail in any way
        raise ValueError(_reason(error)) from error


def _load_zip(file: Path | bytes) -> TorchFile:
    size = _size(file)
    with zipfile.ZipFile(_stream(file)) as archive:
        records = archive.infolist()
        for record in records:
            if record.filename.endswith("/constants.pkl"):
                raise ValueError(
                    "a TorchScript archive, which is a program; save the model's state_dict()"
                )
            if record.compress_type != zipfile.ZIP_STORED or record.file_size > size:
                raise ValueError(f"its record {record.filename} is compressed, as torch writes none")
        pickles = [r for r in records if r.filename.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError("a zip file, but none of torch.save: it holds no data.pkl")
        fillings = survey_pickle(archive.read(pickles[0]), size=size)
        checksums = _checksums(archive)
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(_stream(file))
    with _stand_ins(unknown, fillings):
        content = torch.load(
            file if isinstance(file, Path) else BytesIO(file),
            map_location="cpu",
            mmap=isinstance(file, Path),
            weights_only=True,
        )
    return TorchFile(content, checksums)


def _load_legacy(file: Path | bytes) -> TorchFile:
    stream = _stream(file)
    if stream.read(2) != b"\x80\x02":
        raise ValueError("neither a file of torch.save nor of safetensors")
    stream.seek(0)
    fillings: dict[str, Filling] = {}
    for _ in range(_LEGACY_PICKLES):
        fillings |= survey_pickle(stream, size=_size(file))
    stream.seek(0)
    with _stand_ins(fillings, fillings):
        content = torch.load(stream, map_location="cpu", weights_only=True)
    return TorchFile(content, None)


def _checksums(archive: zipfile.ZipFile) -> frozenset[tuple[int, int]] | None:
    """The checksums of all records, unless torch was told to write none: then no record has one."""
    records = archive.infolist()
    try:
        archive.read(min((r for r in records if r.file_size), key=lambda r: r.file_size))
    except zipfile.BadZipFile:
        return None
    return frozenset((record.file_size, record.CRC) for record in records)


@contextmanager
def _stand_ins(names: Iterable[str], fillings: Mapping[str, Filling]) -> Iterator[None]:
    """Let torch's unpickler make something inert of each class and function that it does not know.

    What it knows, it makes: its own list comes first.
    """
    made = [(stand_in(name, fillings.get(name, "object")), name) for name in names]
    with torch.serialization.safe_globals(made):
        yield


def _stream(file: Path | bytes) -> Any:
    return file.open("rb") if isinstance(file, Path) else BytesIO(file)


def _size(file: Path | bytes) -> int:
    return file.stat().st_size if isinstance(file, Path) else len(file)


def _reason(error: BaseException) -> str:
    """The first sentence of what is wrong, without torch's advice to load the file unsafely."""
    if isinstance(error, pickle.UnpicklingError) and error.__context__ is not None:
        error = error.__context__
    text = str(error).strip()
    if isinstance(error, KeyError | EOFError) or not text:
        text = f"damaged: {type(error).__name__} {text}".strip()
    return text.splitlines()[0].split(". ")[0].rstrip(".")
