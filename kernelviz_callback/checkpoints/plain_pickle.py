"""Open files of ``pickle.dump``, which hold arrays of NumPy or tensors."""

import re
from typing import Any

from kernelviz_callback.checkpoints.byte_ranges import (
    ByteRange,
    Source,
    open_source,
    size_of,
    size_on_disk,
)
from kernelviz_callback.checkpoints.other_tensors import raw_bytes
from kernelviz_callback.checkpoints.pickle_budget import Budget
from kernelviz_callback.checkpoints.pickle_tree import find_tensors
from kernelviz_callback.checkpoints.safe_pickle import Placeholder, read_pickle
from kernelviz_callback.checkpoints.stored_layers import StoredTensor
from kernelviz_callback.checkpoints.torch_file import TorchFile, open_torch_file, rebuild_call

_BEGINNING = 64
_MOST_ARGUMENTS = 8  # of the function that rebuilds a tensor
# A protocol from 2 on begins with its number. Protocols 0 and 1 begin with a dict or a list.
_SIGNATURE = re.compile(rb"\x80[\x02-\x05]|\(dp\d|\(lp\d|\}q|\]q|c[\w.]+\n\w+\n")
_OF_TORCH = re.compile(rb"(?s)\x80.(\x95.{8})?\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.")
# pickle.dump stores the storage of a tensor as the bytes of a file of torch.save.
_STORAGE = "torch.storage._load_from_bytes"


def is_plain_pickle(source: Source) -> bool:
    """Check whether a file begins like a pickle, but not like one of ``torch.save``."""
    with open_source(source) as file:
        beginning = file.read(_BEGINNING)
    return bool(_SIGNATURE.match(beginning)) and not _OF_TORCH.match(beginning)


def open_plain_pickle(source: Source) -> "PlainPickle":
    """Read the first object of a pickle, without executing it.

    Raises:
        ValueError: If the pickle is damaged or hostile.
        OSError: If the file cannot be read.
    """
    budget = Budget(size_on_disk(source))  # holes in the file do not count: they cost nothing
    with open_source(source) as file:
        content, _ = read_pickle(file, budget)
    return PlainPickle(content, budget, size_of(source))


class PlainPickle:
    """The content of a file of ``pickle.dump``.

    Attributes:
        content: The object that was saved, with a `Placeholder` for every object and tensor in it.

    Args:
        content: See above.
        budget: What reading the files of the storages may cost.
        size: Number of bytes that all storages together may have.
    """

    def __init__(self, content: Any, budget: Budget, size: int) -> None:
        self.content = content
        self._budget = budget
        self._left = size
        self._file = TorchFile(content, _no_storage)
        self._storages: dict[int, TorchFile] = {}
        self._nodes: list[Placeholder] = []  # they stay alive: a tensor is found by their ids

    def tensors(self) -> dict[str, StoredTensor]:
        """List the tensors and arrays without reading them, see `find_tensors`.

        Raises:
            ValueError: If the description of a tensor is damaged.
        """
        return find_tensors(self.content, self._tensor)

    def _tensor(self, node: Any) -> StoredTensor | None:
        name, arguments = rebuild_call(node)
        storage = arguments[0] if isinstance(arguments, tuple) and arguments else None
        if not isinstance(storage, Placeholder) or storage.name != _STORAGE:
            return self._file.tensor(node)
        if id(storage) not in self._storages:
            content = raw_bytes(storage.arguments[0]) if storage.arguments else b""
            self._left -= len(content)
            if self._left < 0:
                raise ValueError("damaged: its storages are larger than the file")
            self._storages[id(storage)] = open_torch_file(bytes(content), self._budget)
        file = self._storages[id(storage)]
        self._nodes.append(Placeholder(name, (file.content, *arguments[1:_MOST_ARGUMENTS])))
        return file.tensor(self._nodes[-1])


def _no_storage(key: str) -> ByteRange:
    raise LookupError(f"a plain pickle has no storage {key}")
