"""Open the files of one checkpoint: its layers, and what it says about the training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kernelviz_callback.checkpoints.byte_ranges import Source, seekable_source, size_of
from kernelviz_callback.checkpoints.checkpoint_files import files_of
from kernelviz_callback.checkpoints.distributed import INDEX, list_tensors
from kernelviz_callback.checkpoints.file_kinds import name_kind
from kernelviz_callback.checkpoints.pickle_budget import RefusedError
from kernelviz_callback.checkpoints.pickle_tree import as_mapping
from kernelviz_callback.checkpoints.plain_pickle import (
    PlainPickle,
    is_plain_pickle,
    open_plain_pickle,
)
from kernelviz_callback.checkpoints.safe_pickle import quoted
from kernelviz_callback.checkpoints.safetensors_file import (
    is_safetensors,
    open_safetensors,
    open_tensors,
)
from kernelviz_callback.checkpoints.stored_layers import Layers, StoredTensor, find_layers
from kernelviz_callback.checkpoints.torch_file import TorchFile, open_torch_file
from kernelviz_callback.model.layer_names import printable
from kernelviz_callback.storage import Folder


def open_weights(path: Folder) -> tuple[Layers, Mapping[str, Any]]:
    """Open the checkpoint at a path without reading its weights.

    Args:
        path: A file, a shard or an index of shards, or a folder that is one checkpoint.

    Returns:
        The layers, and the items that the file has beside its weights.

    Raises:
        ValueError: If it is not a checkpoint, or is damaged or hostile.
        OSError: If it cannot be read.
    """
    if path.is_dir() and (path / INDEX).exists():
        return _open_distributed(path)
    files = files_of(path)
    if len(files) == 1:
        file = files[0]
        return _open_distributed(file) if file.is_dir() else _open_file(file)
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        with prefix_errors(file.name):
            found = _tensors_of(_source_of(file))
            twice = next((name for name in found if name in tensors), None)
            if twice is not None:
                raise ValueError(f"not a part of one model: {quoted(twice)} is in another file too")
            tensors |= found
    return find_layers(tensors), {}


@contextmanager
def prefix_errors(name: str) -> Iterator[None]:
    """Put a name in front of the message of an error, see `printable`. The type stays.

    Args:
        name: The path, URL or model name that is opened.
    """
    shown = printable(name)
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from error
    except OSError as error:
        kinds = (FileNotFoundError, PermissionError, OSError)
        kind = next(kind for kind in kinds if isinstance(error, kind))
        if error.filename is None:
            raise kind(f"{shown}: {error}") from error
        file = printable(str(error.filename))
        raise kind(f"{file}: it cannot be read: {error.strerror}") from error
    # Libraries for remote storage raise their own types, or an ImportError if they are missing. A
    # damaged file may make torch raise any other error.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if "://" in name:
            raise OSError(f"{shown}: {reason}") from error
        raise ValueError(f"{shown}: it cannot be read: {reason}") from error


def _open_file(path: Folder) -> tuple[Layers, Mapping[str, Any]]:
    source = _source_of(path)
    if is_safetensors(source):
        return open_safetensors(source)
    file = _open_pickles(source)
    layers = find_layers(file.tensors())
    if isinstance(file, PlainPickle) and not layers.order:
        raise ValueError(
            "a plain pickle, not a file of torch.save, and none of its arrays has 3 to 5 "
            "dimensions and a name like conv.weight; save the weights with torch.save"
        )
    return layers, as_mapping(file.content)


def _open_distributed(folder: Folder) -> tuple[Layers, Mapping[str, Any]]:
    rest = folder / "meta.pt"  # Lightning writes everything but the tensors into this file
    metadata = as_mapping(open_torch_file(rest).content) if rest.exists() else {}
    return find_layers(list_tensors(folder)), metadata


def _source_of(path: Folder) -> Source:
    if size_of(path) == 0:
        raise ValueError("it is empty; save, download or copy it again")
    return seekable_source(path)


def _tensors_of(source: Source) -> dict[str, StoredTensor]:
    return open_tensors(source)[0] if is_safetensors(source) else _open_pickles(source).tensors()


def _open_pickles(source: Source) -> TorchFile | PlainPickle:
    try:
        if is_plain_pickle(source):
            return open_plain_pickle(source)
        return open_torch_file(source)
    except RefusedError:
        raise
    except ValueError as error:
        kind = name_kind(source)
        raise error if kind is None else ValueError(kind) from error
