"""Name a file that is not a checkpoint of PyTorch, and say what to do with it."""

import re
import struct
import zipfile
from typing import Any, BinaryIO, NamedTuple

from kernelviz_callback.checkpoints.byte_ranges import Source, open_source
from kernelviz_callback.checkpoints.safe_pickle import quoted
from kernelviz_callback.checkpoints.torch_file import LARGEST_DIRECTORY, LimitedReads

# Endings of the names of checkpoints.
CHECKPOINT_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".pth.tar")
_BEGINNING = 512  # bytes that are enough to recognize a file
_ZIP = b"PK\3\4"
_NAME_LENGTH_AT, _NAME_AT = 26, 30  # positions in the header of a record
_AGAIN = "download or copy it again"
_SAVE = "save its weights with torch.save or safetensors"


class _Archive(NamedTuple):
    """A kind of zip file.

    Attributes:
        record: Pattern of the name of a record that only such a file has.
        name: What the file is.
        advice: What the user can do.
    """

    record: str
    name: str
    advice: str


class _Kind(NamedTuple):
    """A kind of file.

    Attributes:
        signature: Pattern that the beginning of such a file matches.
        name: What the file is.
        advice: What the user can do.
    """

    signature: bytes
    name: str
    advice: str


_KINDS = (
    _Kind(
        rb"version https://git-lfs",
        "a pointer of Git LFS, not the file itself",
        "run `git lfs pull` in its repository",
    ),
    _Kind(
        rb"(?i)(\xef\xbb\xbf)?\s*(<!doctype html|<html|<head)",
        "a web page, not a checkpoint",
        "open it in a browser to see what the server says, then download the file again",
    ),
    _Kind(rb"(\xef\xbb\xbf)?\s*<\?xml", "an XML file, perhaps the error of a server", _AGAIN),
    _Kind(rb"\x1f\x8b", "compressed with gzip", "unpack it first: gunzip"),
    _Kind(rb"BZh[1-9]", "compressed with bzip2", "unpack it first: bunzip2"),
    _Kind(rb"\xfd7zXZ\0", "compressed with xz", "unpack it first: unxz"),
    _Kind(rb"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first: unzstd"),
    _Kind(rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    _Kind(rb"Rar!", "a RAR archive", "unpack it first"),
    _Kind(rb"(?s).{257}ustar", "a tar archive", "unpack it first: tar xf"),
    _Kind(rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it", _SAVE),
    _Kind(rb"\x93NUMPY", "one array of numpy.save", _SAVE),
    _Kind(rb"\x08\x01\x12", "a SavedModel of TensorFlow", _SAVE),
    _Kind(rb"(?s)\x08[\x02-\x20][\x12\x1a\x22\x2a\x3a\x42]", "an ONNX model", _SAVE),
    _Kind(rb"(?s).{4}TFL3", "a TensorFlow Lite model", _SAVE),
    _Kind(rb"model_checkpoint_path:", "the list of checkpoints of TensorFlow", _SAVE),
    _Kind(rb"GGUF", "a GGUF model", _SAVE),
    _Kind(rb"(?s)[\x81-\x8f]\xa6params", "a checkpoint of Flax", _SAVE),
    _Kind(rb"(?s).{0,200}joblib\.numpy_pickle", "a file of joblib", _SAVE),
    _Kind(rb"\x78[\x01\x5e\x9c\xda]", "compressed with zlib, as joblib does", "unpack it first"),
    _Kind(rb"\x89PNG|\xff\xd8\xff|GIF8", "a picture", "name a checkpoint"),
    _Kind(rb"SQLite format 3", "a database of SQLite", "name a checkpoint"),
    _Kind(rb"\x12\x01\0{6}", "a file of MXNet", _SAVE),
    _Kind(rb"Salted__", "encrypted with OpenSSL", "decrypt it first: openssl enc -d"),
    _Kind(rb"\0{64}", "empty: it begins with zeros, so it was not written whole", _AGAIN),
    _Kind(rb"\s*[{\[]", "a text file, perhaps JSON", "name the file of the weights"),
)
_ARCHIVES = (
    _Archive(
        r"(.*/)?(constants\.pkl|code/.*)",
        "a TorchScript archive, a program",
        "save its state_dict() instead",
    ),
    _Archive(
        r"(.*/)?(archive_format|models/.+\.json|serialized_exported_program\.(json|pb))",
        "a program of torch.export",
        "save torch.export.load(file).state_dict with torch.save",
    ),
    _Archive(r"(.*/)?\.data/extern_modules", "a torch.package", _SAVE),
    _Archive(
        r"[^/]+\.npy",
        "a file of numpy.savez",
        "save its arrays as tensors, with names like conv1.weight: "
        "torch.save({n: torch.from_numpy(a) for n, a in numpy.load(file).items()}, 'weights.pt')",
    ),
    _Archive(r"model\.weights\.h5", "a model of Keras", _SAVE),
    _Archive(r"word/.*|xl/.*|AndroidManifest\.xml", "an office document or an app", "name another"),
)


def name_kind(source: Source) -> str | None:
    """Name the kind of a file that is no checkpoint, with the next step for the user.

    Args:
        source: The path or the content of the file.

    Returns:
        One sentence, None if the kind is not known.

    Raises:
        OSError: If the file cannot be read.

    Example:
        >>> name_kind(b"version https://git-lfs.github.com/spec/v1")
        'a pointer of Git LFS, not the file itself; run `git lfs pull` in its repository'
    """
    with open_source(source) as file:
        beginning = file.read(_BEGINNING)
        if beginning.startswith(_ZIP):
            return _name_archive(_record_names(file))
    for kind in _KINDS:
        if re.match(kind.signature, beginning):
            return f"{kind.name}; {kind.advice}"
    if beginning and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in beginning):
        return "a text file, not a checkpoint; name the file of the weights"
    return None


def _name_archive(names: list[str]) -> str | None:
    kind = next((k for k in _ARCHIVES if any(re.fullmatch(k.record, n) for n in names)), None)
    if kind is not None:
        return f"{kind.name}; {kind.advice}"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return None
    inside = next((name for name in names if name.lower().endswith(CHECKPOINT_SUFFIXES)), None)
    if inside is not None:
        return f"a zip file that holds {quoted(inside)}; unpack it first: unzip"
    return None


def _record_names(file: BinaryIO) -> list[str]:
    """List the names of the records of a zip file; of one that was cut short, only the first."""
    limited: Any = LimitedReads(file, LARGEST_DIRECTORY)
    try:
        with zipfile.ZipFile(limited) as archive:
            return archive.namelist()
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile):
        file.seek(_NAME_LENGTH_AT)
        length = int.from_bytes(file.read(2), "little")
        file.seek(_NAME_AT)
        return [file.read(length).decode("utf-8", "replace")]
