"""The file of what the layers read, beside the snapshots in the run folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors, save as to_safetensors
from torch import Tensor

from kernelviz_callback.filters.patches import Patches
from kernelviz_callback.model.followers import Follower
from kernelviz_callback.model.host import to_host
from kernelviz_callback.snapshots.format import read_metadata
from kernelviz_callback.storage import Location, as_folder, read_whole, write_whole

_NAME = "patches.safetensors"
_MOST_BYTES = 256 << 20  # 24 layers with 1,024 numbers in a patch
_METADATA_KEY = "kernelviz"
_NUMBERS = ("mean", "covariance", "sample")


@dataclass(frozen=True)
class LayerData:
    """What a layer reads in the training, and what follows it.

    Attributes:
        patches: Mean, covariance and a sample of the patches of the layer.
        follower: The norm and the nonlinearity behind the layer.
    """

    patches: Patches
    follower: Follower


def save_patches(data: Mapping[str, LayerData], folder: Location) -> None:
    """Write what the layers of a training read into its folder, as ``patches.safetensors``.

    The tensors of a layer are ``<layer>/mean`` of shape (groups, D), ``<layer>/covariance`` of
    shape (groups, D, D) and ``<layer>/sample`` of shape (groups, n, D), float32. The sample is
    float16 if its values fit. The metadata entry ``kernelviz`` is a JSON object with ``layers``:
    layer name to ``count`` and ``follower``.

    Args:
        data: Layer name to what the layer reads.
        folder: Path or URL of the folder of the snapshots.

    Raises:
        OSError: If the file cannot be written. An earlier file is kept then.
    """
    tensors: dict[str, Tensor] = {}
    for layer, found in data.items():
        for name in _NUMBERS:
            values = getattr(found.patches, name).float()
            if name == "sample" and values.half().isfinite().all():
                values = values.half()
            tensors[f"{layer}/{name}"] = to_host(values).contiguous()
    layers = {
        layer: {"count": found.patches.count, "follower": asdict(found.follower)}
        for layer, found in data.items()
    }
    metadata = {_METADATA_KEY: json.dumps({"layers": layers})}
    write_whole(as_folder(folder) / _NAME, to_safetensors(tensors, metadata))


def load_patches(folder: Location) -> dict[str, LayerData]:
    """Read what the layers of a training read.

    Args:
        folder: Path or URL of the folder of the snapshots.

    Returns:
        Layer name to what the layer reads; empty if the folder has no such file, or if the file
        cannot be read.

    Example:
        >>> load_patches("no such folder")
        {}
    """
    try:
        content = read_whole(as_folder(folder) / _NAME, _MOST_BYTES)
        tensors = from_safetensors(content)
        layers = json.loads(read_metadata(content)[_METADATA_KEY])["layers"]
        return {layer: _layer_data(layer, found, tensors) for layer, found in layers.items()}
    except (OSError, SafetensorError, LookupError, AttributeError, TypeError, ValueError):
        return {}


def _layer_data(layer: str, found: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LayerData:
    mean, covariance, sample = (tensors[f"{layer}/{name}"] for name in _NUMBERS)
    groups, size = mean.shape
    if covariance.shape != (groups, size, size) or sample.shape != (groups, sample.shape[1], size):
        raise ValueError(f"the numbers of {layer} do not fit together")
    patches = Patches(
        mean.to(torch.float64),
        covariance.to(torch.float64),
        sample.to(torch.float32),
        int(found["count"]),
    )
    return LayerData(patches, Follower(**found["follower"]))
