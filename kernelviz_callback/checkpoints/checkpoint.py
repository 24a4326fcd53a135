"""Open a checkpoint of any kind: list its convolutions, and read the weights of one of them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from kernelviz_callback.checkpoints.byte_ranges import seekable_source, size_of
from kernelviz_callback.checkpoints.distributed import INDEX, list_tensors
from kernelviz_callback.checkpoints.pickle_tree import as_mapping
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
from kernelviz_callback.snapshots.format import LayerRecord
from kernelviz_callback.storage import Folder, Location, as_absolute

TORCHVISION = "torchvision:"
STEP_IN_NAME = re.compile(r"(?<![a-z])step[=_-]?(\d+)")
_EPOCH_IN_NAME = re.compile(r"epoch[=_-]?(\d+)")
_MOST_LISTED = 20  # layers in a message
_MOST_STEPS = 1 << 62  # a larger number is not a step


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An open file or folder with weights. Weights are read on request only.

    Attributes:
        name: Path, URL or model name that was opened.
        layers: Name to convolution, in the order of the file.
        refused: Name to reason, for tensors that look like convolutions but cannot be shown.
        step: Number of optimizer steps, None if the file does not state it.
        epoch: Epoch, counted from 0, None if the file does not state it.
        order: The names of all layers, also of the refused ones, in the order of the file.
    """

    name: str
    layers: Mapping[str, StoredLayer]
    refused: Mapping[str, str]
    step: int | None = None
    epoch: int | None = None
    order: Sequence[str] = ()

    def resolve(self, layer: str | None = None) -> str:
        """Find the full name of a layer.

        If both 2-D layers and 1-D or 3-D layers match, the 2-D layers are preferred.

        Args:
            layer: A name, the end of a name after a dot, or a glob; None for the first layer.

        Raises:
            ValueError: If no layer matches, or several layers match and ``layer`` is not a glob.
                The message lists all layers.
        """
        if layer is None:
            if not self.layers:
                found = (
                    f"{self.name}: found no 2-D convolution, and no 1-D or 3-D convolution; "
                    "expected weights of 3 to 5 dimensions under a name like conv.weight"
                )
                raise ValueError(f"{found}\n{self.describe()}".rstrip())
            return self._prefer_2d(self.layers)[0]
        if layer in self.layers:
            return layer
        matching = [n for n in self.layers if n.endswith(f".{layer}") or fnmatchcase(n, layer)]
        preferred = self._prefer_2d(matching)
        if preferred and (len(preferred) == 1 or any(sign in layer for sign in "*?[")):
            return preferred[0]
        reason = self.refused.get(layer)
        problem = (
            f"{layer!r} cannot be shown, {reason}" if reason else f"found no single layer {layer!r}"
        )
        raise ValueError(f"{self.name}: {problem}; it has\n{self.describe()}")

    def read(self, layer: str | None = None) -> Tensor:
        """Read the weights of a layer, float32. The shape is the ``shape`` of its entry in layers.

        Args:
            layer: See `resolve`.

        Raises:
            ValueError: If no layer matches, or the file is damaged.
            OSError: If the file cannot be read.
        """
        name = self.resolve(layer)
        with prefix_errors(self.name):
            return self.layers[name].read()

    def read_record(self, layer: str | None = None) -> LayerRecord | None:
        """Read what a snapshot records about a layer besides its weights, such as its health.

        Args:
            layer: See `resolve`.

        Returns:
            None if the checkpoint is not one of our snapshots.

        Raises:
            ValueError: If no layer matches, or the file is damaged or of a newer version.
            OSError: If the file cannot be read.
        """
        read = self.layers[self.resolve(layer)].read_record
        with prefix_errors(self.name):
            return None if read is None else read()

    def passed_over(self, layer: str) -> dict[str, str]:
        """Return the refused layers that are before a layer in the file: name to reason.

        If the first convolution of a network cannot be shown, another layer comes first.
        """
        names = list(takewhile(lambda name: name != layer, self.order))
        return {name: self.refused[name] for name in names if name in self.refused}

    def describe(self) -> str:
        """List the layers and their shapes, one line for each, in the order of the file."""
        names = dict.fromkeys((*self.order, *self.layers, *self.refused))
        lines = [
            f"  {name}: {'x'.join(map(str, self.layers[name].shape))}"
            if name in self.layers
            else f"  {name}: cannot be shown, {self.refused[name]}"
            for name in names
        ]
        more = len(lines) - _MOST_LISTED
        return "\n".join(lines[:_MOST_LISTED] + ([f"  ... and {more} more"] if more > 0 else []))

    def _prefer_2d(self, names: Iterable[str]) -> list[str]:
        """Return the 2-D layers, or all layers if none is 2-D, as `find_convolutions` does.

        In the second case, names with "conv" come first: other tensors have three dimensions too,
        for example position embeddings.
        """
        candidates = list(names)
        by_name = sorted(candidates, key=lambda name: "conv" not in name.lower())
        return [name for name in candidates if len(self.layers[name].shape) == 4] or by_name


def open_checkpoint(location: Location | nn.Module) -> Checkpoint:
    """Open a checkpoint. Nothing in it is executed, and no weights are read yet.

    Args:
        location: Path or URL of a Lightning checkpoint, of another file of ``torch.save``, of a
            safetensors file, of one of our snapshots, or of a folder of
            ``torch.distributed.checkpoint``; ``"torchvision:resnet50"`` or
            ``"torchvision:resnet50:IMAGENET1K_V2"``; or a module.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged, hostile or not a checkpoint. The message is one line
            that names the file.
    """
    if isinstance(location, nn.Module):
        return _from_module(location, type(location).__name__)
    name = str(location)
    if name.startswith(TORCHVISION):
        return _from_module(_torchvision_model(name), name)
    with prefix_errors(name):
        folder = as_absolute(location)  # weights are read later
        if not folder.exists():
            raise FileNotFoundError("the file or folder does not exist")
        layers, metadata = _open_folder(folder) if folder.is_dir() else _open_file(folder)
    return Checkpoint(
        name,
        layers.found,
        layers.refused,
        _read_number(metadata, ("step", "global_step"), STEP_IN_NAME, folder.name),
        _read_number(metadata, ("epoch",), _EPOCH_IN_NAME, folder.name),
        layers.order,
    )


def load_weights(location: Location | nn.Module, layer: str | None = None) -> Tensor:
    """Read the filters of one layer out of any checkpoint.

    Args:
        location: See `open_checkpoint`.
        layer: Name of the layer, the end of its name, or a glob; None for the first 2-D
            convolution, or for the first 1-D or 3-D convolution if there is no 2-D convolution.

    Returns:
        Shape (N, C, kH, kW); for a 1-D layer (N, C, k), for a 3-D layer (N, C, kD, kH, kW).
        float32, on the CPU.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged or no layer matches.

    Example:
        >>> load_weights("torchvision:resnet18").shape
        torch.Size([64, 3, 7, 7])
    """
    return open_checkpoint(location).read(layer)


def plain_geometry(shape: Shape) -> Geometry:
    """Assume the geometry of a layer whose file does not store it: no stride, dilation or groups.

    Args:
        shape: Shape of the weights.

    Example:
        >>> plain_geometry((8, 1, 31))
        Geometry(kind='Conv1d', stride=(1,), padding=(0,), dilation=(1,), groups=1)
    """
    dimensions = len(shape) - 2
    ones = (1,) * dimensions
    return Geometry(f"Conv{dimensions}d", ones, (0,) * dimensions, ones, 1)


@contextmanager
def prefix_errors(name: str) -> Iterator[None]:
    """Put a name in front of the message of an error. The type of the error stays.

    Args:
        name: The path, URL or model name that is opened.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        if error.filename is not None:
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
        raise kind(f"{name}: {error}") from error
    # Libraries for remote storage raise their own types, or an ImportError if they are missing. A
    # damaged file may make torch raise any other error.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if "://" in name:
            raise OSError(f"{name}: {reason}") from error
        raise ValueError(f"{name}: it cannot be read: {reason}") from error


def _open_file(path: Folder) -> tuple[Layers, Mapping[str, Any]]:
    if size_of(path) == 0:
        raise ValueError("it is empty")
    source = seekable_source(path)
    if is_safetensors(source):
        return open_safetensors(source)
    file = open_torch_file(source)
    return find_layers(file.tensors()), as_mapping(file.content)


def _open_folder(folder: Folder) -> tuple[Layers, Mapping[str, Any]]:
    if not (folder / INDEX).exists():
        raise ValueError(
            f"a folder, but not one of torch.distributed.checkpoint: it has no {INDEX}"
        )
    rest = folder / "meta.pt"  # Lightning writes everything but the tensors into this file
    metadata = as_mapping(open_torch_file(rest).content) if rest.exists() else {}
    return find_layers(list_tensors(folder)), metadata


def _from_module(module: nn.Module, name: str) -> Checkpoint:
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
    return Checkpoint(name, layers, unready, order=list(found))


def _torchvision_model(name: str) -> nn.Module:
    """Build a network; if no weights are named, initialize it with a fixed seed."""
    from torchvision.models import get_model

    _, model, *weights = name.split(":")
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(0)  # only on the CPU
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


def _read_number(
    metadata: Mapping[str, Any], keys: tuple[str, ...], pattern: re.Pattern[str], name: str
) -> int | None:
    for key in keys:
        value = metadata.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_STEPS:
            return value
    match = pattern.search(name)
    return int(match[1]) if match else None
