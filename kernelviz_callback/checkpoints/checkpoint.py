"""Open a checkpoint of any kind: list its convolutions, and read the weights of one of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from kernelviz_callback.checkpoints.checkpoint_files import why_missing
from kernelviz_callback.checkpoints.open_weights import open_weights, prefix_errors
from kernelviz_callback.checkpoints.pickle_tree import as_mapping
from kernelviz_callback.checkpoints.stored_layers import Shape, StoredLayer
from kernelviz_callback.model.convolutions import (
    Geometry,
    geometry_of,
    is_ready,
    name_layers,
    weight_shape,
)
from kernelviz_callback.model.layer_names import is_glob, match_names, nearest_name, printable
from kernelviz_callback.model.weights import effective_weight
from kernelviz_callback.snapshots.format import LayerRecord
from kernelviz_callback.storage import Folder, Location, as_absolute

TORCHVISION = "torchvision:"
_STEP_IN_NAME = re.compile(r"(?<![a-z])(?:step|iter)[=_-]?(\d{1,18})(?!\d|\.\d|e\d)")
_STEP_OF_FOLDER = re.compile(r"checkpoint-(\d{1,18})(?!\d)")
_EPOCH_IN_NAME = re.compile(r"epoch[=_-]?(\d{1,18})(?!\d)")
_MOST_LISTED = 20  # layers in a message
_MOST_NAMED = 5  # layers in a remark
_IMAGE_CHANNELS = (3, 4)
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
                    f"{printable(self.name)}: found no 2-D convolution, and no 1-D or 3-D "
                    "convolution; expected weights of 3 to 5 dimensions under a name like "
                    "conv.weight"
                )
                raise ValueError(f"{found}\n{self.describe()}".rstrip())
            return self._prefer_2d(self.layers)[0]
        layer = printable(layer)
        if layer in self.layers:
            return layer
        is_refused = layer in self.refused
        preferred = [] if is_refused else self._prefer_2d(match_names(self.layers, layer))
        if preferred and (len(preferred) == 1 or is_glob(layer)):
            return preferred[0]
        refused = [] if preferred else match_names(self.refused, layer)
        nearest = nearest_name(self.layers, layer)
        problem = f"found no single layer {layer!r}"
        if refused:
            problem = f"{refused[0]!r} cannot be shown, {self.refused[refused[0]]}"
        elif nearest is not None and not preferred:
            problem += f"; the nearest name is {nearest!r}"
        raise ValueError(f"{printable(self.name)}: {problem}; it has\n{self.describe()}")

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

    def remarks(self, layer: str | None = None) -> list[str]:
        """Say what a user should know about the layer that `resolve` finds, one sentence each.

        If the first convolution of the network cannot be shown, another layer is the first here.
        Most files do not state in which order the network calls its layers, so the first one in
        the file may be that of a decoder or generator. A class of the user may multiply with other
        weights than those that it stores.

        Raises:
            ValueError: If no layer matches.
        """
        name = self.resolve(layer)
        before = takewhile(lambda other: other != name, self.order if layer is None else ())
        remarks = [f"{n} cannot be shown, {self.refused[n]}" for n in before if n in self.refused]
        also = [] if layer is not None else self._other_readers(name)
        if also:
            more = f" and {len(also) - _MOST_NAMED} more" if len(also) > _MOST_NAMED else ""
            remarks.append(
                f"{name} is the first convolution in the file; also there: "
                f"{', '.join(also[:_MOST_NAMED])}{more}"
            )
        unknown = self.layers[name].unknown
        if unknown is not None:
            remarks.append(f"{name} is drawn with the weights that it stores: {unknown}")
        return remarks

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

    def _other_readers(self, first: str) -> list[str]:
        """List the other layers that may read an image, by the number of their channels."""
        shapes = {name: layer.shape for name, layer in self.layers.items() if name != first}
        return [n for n, s in shapes.items() if len(s) == 4 and s[1] in _IMAGE_CHANNELS]

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
            safetensors file, of one of our snapshots, of a plain pickle of arrays, or of a folder
            that is one checkpoint: of ``torch.distributed.checkpoint``, of Hugging Face or of
            DeepSpeed; of one of the shards of a model, or of their index, for the whole model;
            ``"torchvision:resnet50"`` or ``"torchvision:resnet50:IMAGENET1K_V2"``; or a module.

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
            raise FileNotFoundError(why_missing(folder))
        layers, metadata = open_weights(folder)
    within = as_mapping(metadata.get("meta"))  # of MMEngine
    metadata = {**within, **metadata}
    epoch = _read_number(metadata, ("epoch",))
    step = _read_number(metadata, ("step", "global_step", "global_steps", "iter", "iteration"))
    return Checkpoint(
        name,
        layers.found,
        layers.refused,
        step_in_name(folder) if step is None else step,
        epoch_in_name(folder) if epoch is None else epoch,
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


def step_in_name(path: Folder) -> int | None:
    """Read the step from the name of a checkpoint, None if it has none.

    Hugging Face names the folder of a checkpoint by its step: ``checkpoint-500``.

    Example:
        >>> from pathlib import Path
        >>> step_in_name(Path("epoch=1-step=8.ckpt")), step_in_name(Path("checkpoint-500"))
        (8, 500)
    """
    match = _STEP_IN_NAME.search(path.name) or _STEP_OF_FOLDER.fullmatch(path.name)
    match = match or _STEP_OF_FOLDER.fullmatch(path.parent.name)
    return int(match[1]) if match else None


def epoch_in_name(path: Folder) -> int | None:
    """Read the epoch from the name of a checkpoint, None if it has none.

    Example:
        >>> from pathlib import Path
        >>> epoch_in_name(Path("epoch=1-step=8.ckpt"))
        1
    """
    match = _EPOCH_IN_NAME.search(path.name)
    return int(match[1]) if match else None


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


def _from_module(module: nn.Module, name: str) -> Checkpoint:
    named = name_layers(module)
    layers: dict[str, StoredLayer] = {}
    refused: dict[str, str] = {}
    for layer, (conv, _, reason) in named.items():
        if reason is not None:
            refused[layer] = reason
        elif not is_ready(conv):
            refused[layer] = "it has no weights before its first forward"
        else:
            read = partial(_read_effective_weight, conv)
            layers[layer] = StoredLayer(weight_shape(conv), read, geometry_of(conv))
    return Checkpoint(name, layers, refused, order=list(named))


def _read_effective_weight(conv: nn.Module) -> Tensor:
    return effective_weight(conv).cpu()


def _torchvision_model(name: str) -> nn.Module:
    """Build a network; if no weights are named, initialize it with a fixed seed."""
    from torchvision.models import get_model

    _, model, *weights = name.split(":")
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)  # the dtype of the weights that are downloaded
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
    finally:
        torch.set_default_dtype(before)


def _read_number(metadata: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    for key in keys:
        value = metadata.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_STEPS:
            return value
    return None
