"""Folders of ``torch.distributed.checkpoint``: put sharded weights together in one process.

torch's own reader unpickles the index of such a folder, which executes what the index names. This
reader treats the index as plain data. It reads only the shards of the layers that are requested.
"""

from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.checkpoints.byte_ranges import (
    ByteRange,
    check_tensor_count,
    size_of,
    why_no_floats,
)
from kernelviz_callback.checkpoints.pickle_budget import Budget
from kernelviz_callback.checkpoints.safe_pickle import (
    Placeholder,
    quoted,
    read_pickle,
    text,
    whole_numbers,
)
from kernelviz_callback.checkpoints.stored_layers import StoredTensor
from kernelviz_callback.checkpoints.torch_file import open_torch_file
from kernelviz_callback.storage import Folder, read_whole

INDEX = ".metadata"
_LARGEST_INDEX = 64 << 20  # bytes; that of a large network has some megabytes
_MOST_KEYS = 64  # that lead to a tensor
_Shards: TypeAlias = dict[str, list["_Shard"]]


@dataclass(frozen=True)
class _Shard:
    """A part of a tensor: its byte range in a file, and its position in the tensor."""

    file: str
    start: int
    length: int
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class _ShardedTensor:
    """A tensor whose shards are in the files of a folder."""

    folder: Folder
    shape: tuple[int, ...]
    shards: list[_Shard]

    def read(self) -> Tensor:
        self._check_sizes()
        whole = torch.empty(self.shape, dtype=torch.float32, device="cpu")
        missing = torch.ones(self.shape, dtype=torch.bool, device="cpu")
        budget = Budget()
        for shard in self.shards:
            part = self._read(shard, budget)
            box = tuple(slice(o, o + n) for o, n in zip(shard.offsets, part.shape, strict=False))
            if len(shard.offsets) != len(self.shape) or whole[box].shape != part.shape:
                raise ValueError("damaged: a shard reaches beyond the whole")
            whole[box] = part
            missing[box] = False
        if missing.any():
            raise ValueError("damaged: shards are missing")
        return whole

    def _check_sizes(self) -> None:
        """Check that the files are as large as the index says, before memory is allocated."""
        available = sum(size_of(self.folder / name) for name in {s.file for s in self.shards})
        if max(prod(self.shape), sum(shard.length for shard in self.shards)) > available:
            raise ValueError("damaged: its shards are smaller than its index says")

    def _read(self, shard: _Shard, budget: Budget) -> Tensor:
        file = open_torch_file(
            ByteRange(self.folder / shard.file, shard.start, shard.length).read(), budget
        )
        stored = file.tensor(file.content)
        if stored is None:
            raise ValueError("damaged: a shard holds no tensor")
        return stored.read()


def list_tensors(folder: Folder) -> dict[str, StoredTensor]:
    """List the tensors of a folder, without reading them: name to tensor.

    Raises:
        ValueError: If the index is damaged or hostile.
        OSError: If the index cannot be read.
    """
    try:
        content = read_whole(folder / INDEX, _LARGEST_INDEX)
        index = read_pickle(BytesIO(content), Budget(len(content)))[0].state
        shards = _group_shards(index["storage_data"])
        keys = index.get("planner_data") or {}
        return {
            name: _describe_tensor(folder, kept.state, shards[name], keys.get(name, (name,)))
            for name, kept in index["state_dict_metadata"].items()
            if text(name) in shards
        }
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"its index {INDEX} is damaged, or was not written by torch") from error
    except ValueError as error:
        raise ValueError(f"its index {INDEX}: {error}") from error


def _group_shards(storage_data: dict[Placeholder, Placeholder]) -> _Shards:
    found: _Shards = {}
    check_tensor_count(len(storage_data))
    for key, stored in storage_data.items():
        part, where = key.state, stored.state
        if part.get("offset") is not None:  # without an offset it is not a tensor
            start, length = whole_numbers((where["offset"], where["length"]))
            file = _check_file_name(where["relative_path"])
            shard = _Shard(file, start, length, whole_numbers(part["offset"]))
            found.setdefault(text(part["fqn"]), []).append(shard)
    return found


def _describe_tensor(folder: Folder, kept: Any, shards: list[_Shard], keys: Any) -> StoredTensor:
    shape = whole_numbers(kept["size"])
    dtype = text(kept["properties"].state[0])
    if len(keys) > _MOST_KEYS:
        raise TypeError(f"expected at most {_MOST_KEYS} keys")
    return StoredTensor(
        shape,
        _ShardedTensor(folder, shape, shards).read,
        why_no_floats(dtype),
        within=".".join(key for key in keys[:-1] if isinstance(key, str)),
    )


def _check_file_name(found: Any) -> str:
    name = text(found)
    if "/" in name or "\\" in name or name in ("", ".", "..") or not name.isprintable():
        raise ValueError(f"it names a file outside the folder, {quoted(name)}")
    return name
