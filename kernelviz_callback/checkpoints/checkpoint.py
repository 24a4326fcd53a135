"""One checkpoint of any kind, opened: which convolutions it holds, and the weights of one."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from kernelviz_callback.checkpoints.byte_ranges import readable_in_parts
from kernelviz_callback.checkpoints.distributed import INDEX, tensors_below
from kernelviz_callback.checkpoints.pickle_tree import mapping_of
from kernelviz_callback.checkpoints.safetensors_file import is_safetensors, open_safetensors
from kernelviz_callback.checkpoints.stored_layers import Layers, Shape, StoredLayer, find_layers
from kernelviz_callback.checkpoints.torch_file import open_torch_file
from kernelviz_callback.model.convolutions import (
    Geometry,
    find_convolutions,
    geometry_of,
    is_ready,
    weight_shape,
)
from kernelviz_callback.model.weights import effective_weight
from kernelviz_callback.storage import Folder, Location, as_folder

TORCHVISION = "torchvision:"
STEP_IN_NAME = re.compile(r"(?<![a-z])step[=_-]?(\d+)")
_EPOCH_IN_NAME = re.compile(r"epoch[=_-]?(\d+)")
_MOST_NAMED = 20
_MOST_STEPS = 1 << 62


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A file or folder with weights, of which only what is asked for is read.

    Attributes:
        name: What it was opened by.
        layers: Name to convolution, in the order of the file.
        refused: Names of what looks like a convolution and cannot be shown, to the reason.
        step: Optimizer steps, if it tells.
        epoch: From 0, if it tells.
    """

    name: str
    layers: Mapping[str, StoredLayer]
    refused: Mapping[str, str]
    step: int | None = None
    epoch: int | None = None

    def resolve(self, layer: str | None = None) -> str:
        """Find the name of a layer: of the first, or of the one that is meant by ``layer``.

        A 2-D layer is meant sooner than one of 1 or 3 dimensions, which a network may have beside.

        Args:
            layer: A name, the end of one after a dot, or a glob.

        Raises:
            ValueError: If there is none, or more than one begins to fit; the message lists all.
        """
        if layer is None:
            if not self.layers:
                found = (
                    f"{self.name}: found no 2-D convolution, nor one of 1 or 3 dimensions: weights "
                    "of 3 to 5 dimensions under a name like conv.weight"
                )
                raise ValueError(f"{found}\n{self.describe()}".rstrip())
            return self._likeliest(self.layers)[0]
        if layer in self.layers:
            return layer
        fitting = [n for n in self.layers if n.endswith(f".{layer}") or fnmatchcase(n, layer)]
        likeliest = self._likeliest(fitting)
        if likeliest and (len(likeliest) == 1 or any(sign in layer for sign in "*?[")):
            return likeliest[0]
        reason = self.refused.get(layer)
        problem = (
            f"{layer!r} cannot be shown, {reason}" if reason else f"found no single layer {layer!r}"
        )
        raise ValueError(f"{self.name}: {problem}; it has\n{self.describe()}")

    def read(self, layer: str | None = None) -> Tensor:
        """Read the weights of a layer, of its `StoredLayer.shape`, float32.

        Raises:
            ValueError: If there is no such layer, or its bytes are damaged.
            OSError: If they cannot be read.
        """
        name = self.resolve(layer)
        with named(self.name):
            return self.layers[name].read()

    def describe(self) -> str:
        """List the layers and their shapes, a line each."""
        lines = [f"  {n}: {'x'.join(map(str, s.shape))}" for n, s in self.layers.items()]
        lines += [f"  {name}: cannot be shown, {why}" for name, why in self.refused.items()]
        more = len(lines) - _MOST_NAMED
        return "\n".join(lines[:_MOST_NAMED] + ([f"  ... and {more} more"] if more > 0 else []))

    def _likeliest(self, names: Iterable[str]) -> list[str]:
        """Those of 2-D layers, as `find_convolutions` has it; where there are none, the others.

        Of these the ones that are called convolutions come first: tables of other things have three
        dimensions too.
        """
        known = list(names)
        others = sorted(known, key=lambda name: "conv" not in name.lower())
        return [name for name in known if len(self.layers[name].shape) == 4] or others


def open_checkpoint(location: Location | nn.Module) -> Checkpoint:
    """Open whatever holds weights. Nothing in it is executed, and no weights are read yet.

    Args:
        location: Path or URL of a Lightning checkpoint, of whatever else ``torch.save`` wrote, of a
            safetensors file, of one of our snapshots, or of a folder of
            ``torch.distributed.checkpoint``; ``"torchvision:resnet50"`` or
            ``"torchvision:resnet50:IMAGENET1K_V2"``; or a module.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, hostile or no checkpoint; one line that names it.
    """
    if isinstance(location, nn.Module):
        return _of_module(location, type(location).__name__)
    name = str(location)
    if name.startswith(TORCHVISION):
        return _of_module(_torchvision_model(name), name)
    with named(name):
        folder = as_folder(location)
        if not folder.exists():
            raise FileNotFoundError("there is no such file or folder")
        layers, told = _open_folder(folder) if folder.is_dir() else _open_file(folder)
    return Checkpoint(
        name,
        layers.found,
        layers.refused,
        _number(told, ("step", "global_step"), STEP_IN_NAME, folder.name),
        _number(told, ("epoch",), _EPOCH_IN_NAME, folder.name),
    )


def load_weights(location: Location | nn.Module, layer: str | None = None) -> Tensor:
    """Read the filters of one layer out of any checkpoint.

    Args:
        location: See `open_checkpoint`.
        layer: Name of the layer, the end of its name, or a glob; None for the first 2-D
            convolution, or the first of 1 or 3 dimensions where there is none.

    Returns:
        Shape (N, C, kH, kW), of a 1-D layer (N, C, k), of a 3-D layer (N, C, kD, kH, kW); float32,
        on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or has no such layer.

    Example:
        >>> load_weights("torchvision:resnet18").shape
        torch.Size([64, 3, 7, 7])
    """
    return open_checkpoint(location).read(layer)


def plain_geometry(shape: Shape) -> Geometry:
    """How a layer slides whose file does not tell: strides do not matter for its responses.

    Args:
        shape: Of its weights.

    Example:
        >>> plain_geometry((8, 1, 31))
        Geometry(kind='Conv1d', stride=(1,), padding=(0,), dilation=(1,), groups=1)
    """
    dimensions = len(shape) - 2
    ones = (1,) * dimensions
    return Geometry(f"Conv{dimensions}d", ones, (0,) * dimensions, ones, 1)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Let an error tell in one line what could not be opened, and leave its kind as it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        if error.filename is not None:
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
        raise kind(f"{name}: {error}") from error
    except Exception as error:  # of a library for a remote storage, or because there is none
        if "://" not in name:
            raise
        reason = str(error).partition("\n")[0]
        raise OSError(f"{name}: {reason or type(error).__name__}") from error


def _open_file(path: Folder) -> tuple[Layers, Mapping[str, Any]]:
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    source = readable_in_parts(path)
    if is_safetensors(source):
        return open_safetensors(source)
    file = open_torch_file(source)
    return find_layers(file.tensors()), mapping_of(file.content)


def _open_folder(folder: Folder) -> tuple[Layers, Mapping[str, Any]]:
    if not (folder / INDEX).exists():
        raise ValueError(f"a folder, but none of torch.distributed.checkpoint: it has no {INDEX}")
    beside = folder / "meta.pt"  # where Lightning puts the rest
    told = mapping_of(open_torch_file(beside).content) if beside.exists() else {}
    return find_layers(tensors_below(folder)), told


def _of_module(module: nn.Module, name: str) -> Checkpoint:
    try:
        found = find_convolutions(module, "*")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    ready = {layer: conv for layer, conv in found.items() if is_ready(conv)}
    layers = {
        layer: StoredLayer(
            weight_shape(conv),
            lambda conv=conv: effective_weight(conv).cpu(),  # type: ignore[misc]
            geometry_of(conv),
        )
        for layer, conv in ready.items()
    }
    unready = dict.fromkeys(found.keys() - ready, "it has no weights before its first forward")
    return Checkpoint(name, layers, unready)


def _torchvision_model(name: str) -> nn.Module:
    """Build a network; without weights it has those of a fixed random initialization."""
    from torchvision.models import get_model

    _, model, *weights = name.split(":")
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(0)  # those of accelerators are left alone
            built: nn.Module = get_model(model, weights=weights[0] if weights else None)
            return built
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{name}: found no such network or weights; expected torchvision:NAME or "
            f"torchvision:NAME:WEIGHTS, as torchvision.models.list_models() lists them"
        ) from error
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name}: its weights could not be downloaded: {reason}") from error


def _number(
    told: Mapping[str, Any], keys: tuple[str, ...], pattern: re.Pattern[str], name: str
) -> int | None:
    for key in keys:
        value = told.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_STEPS:
            return value
    found = pattern.search(name)
    return int(found[1]) if found else None
