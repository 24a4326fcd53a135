"""Folders of ``torch.distributed.checkpoint``: sharded weights put together in one process.

torch's own reader unpickles the index of such a folder with all that is in it. This one makes
nothing but stand-ins of it, and reads only the shards of the layers that it is asked for.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any

import torch
from torch import Tensor

from kernelviz_callback.opening.layers import StoredTensor
from kernelviz_callback.opening.pickle_survey import Filling, survey_pickle
from kernelviz_callback.opening.stand_ins import stand_in
from kernelviz_callback.opening.torch_file import load_torch_file
from kernelviz_callback.storage import Folder

INDEX = ".metadata"


@dataclass(frozen=True)
class _Shard:
    """A part of a tensor, and where its bytes are."""

    file: str
    start: int
    length: int
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class _Sharded:
    """A tensor whose parts lie in the files of a folder."""

    folder: Folder
    shape: tuple[int, ...]
    shards: list[_Shard]

    def read(self) -> Tensor:
        if prod(self.shape) > sum(shard.length for shard in self.shards):
            raise ValueError("damaged: its shards are smaller than the whole that they make")
        whole = torch.full(self.shape, torch.nan)
        covered = 0
        for shard in self.shards:
            part = self._read(shard).to(torch.float32)
            box = [slice(o, o + n) for o, n in zip(shard.offsets, part.shape, strict=True)]
            if whole[tuple(box)].shape != part.shape:
                raise ValueError("damaged: a shard reaches beyond the whole")
            whole[tuple(box)] = part
            covered += part.numel()
        if covered != whole.numel():
            raise ValueError("damaged: shards are missing")
        return whole

    def _read(self, shard: _Shard) -> Tensor:
        with (self.folder / shard.file).open("rb") as file:
            file.seek(shard.start)
            content = file.read(shard.length)
        stored = load_torch_file(content)
        if not isinstance(stored.content, Tensor):
            raise ValueError("damaged: a shard holds no tensor")
        stored.check(stored.content)
        return stored.content


def tensors_below(folder: Folder) -> dict[str, StoredTensor]:
    """List the tensors of a folder, without reading any: name to tensor.

    Raises:
        ValueError: If the index is damaged or hostile.
        OSError: If it cannot be read.
    """
    content = (folder / INDEX).read_bytes()
    try:
        index = _Index(BytesIO(content), survey_pickle(content, size=len(content))).load().state
        shards: dict[str, list[_Shard]] = {}
        for place, stored in index["storage_data"].items():
            at, where = place.state, stored.state
            if at["offset"] is not None:
                shard = _Shard(
                    _plain(where["relative_path"]),
                    int(where["offset"]),
                    int(where["length"]),
                    tuple(map(int, at["offset"])),
                )
                shards.setdefault(at["fqn"], []).append(shard)
        found: dict[str, StoredTensor] = {}
        for name, kept in index["state_dict_metadata"].items():
            if name in shards and "size" in kept.state:
                shape = tuple(map(int, kept.state["size"]))
                found[name] = StoredTensor(shape, _Sharded(folder, shape, shards[name]).read)
        return found
    except Exception as error:  # a damaged index may fail in any way
        raise ValueError(f"its index {INDEX} is damaged: {error}") from error


class _Index(pickle.Unpickler):
    """Makes dicts, tuples and stand-ins; nothing that a file names is looked up anywhere."""

    def __init__(self, file: BytesIO, fillings: Mapping[str, Filling]) -> None:
        super().__init__(file)
        self._fillings = fillings

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch", "Size"):
            return tuple
        return stand_in(name, self._fillings.get(f"{module}.{name}", "object"))


def _plain(name: str) -> str:
    if "/" in name or "\\" in name or name in ("", ".", ".."):
        raise ValueError(f"it names a file outside the folder, {name!r}")
    return name
