"""Snapshots: the exact weights of the watched layers at one step, and the file they live in.

One safetensors file a step, ``step-00000128.safetensors``: a float32 tensor ``<layer>/weight`` for
every layer, and one metadata entry, ``kernelviz``, a JSON object with the keys ``schema_version``,
``step``, ``epoch``, ``wall_time`` (seconds since 1970), ``layers`` (name to geometry: ``kind``,
``stride``, ``padding``, ``dilation``, ``groups``), ``probe`` (``name`` and SHA-256 ``digest``, or
null) and ``versions`` (package to version). Files with a newer ``schema_version`` are refused.

A snapshot whose layers were examined also has, for each, float32 tensors
``<layer>/health/<number>`` of one number a filter, and the entry ``health`` in that object: layer
to ``totals``, ``verdicts``, ``absent`` and ``false_alarm_rate``, as in `KernelHealth.to_dict`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernelviz_callback._version import __version__
from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.layer_pictures import kernel_picture
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.model.feature_maps import FeatureMaps

_MOST_SHOWN = 4  # layers, where a snapshot shows itself


@dataclass(frozen=True)
class Snapshot:
    """The watched layers at one step of a training.

    Attributes:
        step: Optimizer steps taken, ``trainer.global_step``.
        epoch: ``trainer.current_epoch``, from 0.
        wall_time: When it was taken, seconds since 1970.
        weights: Layer name to filters, shape (N, C, kH, kW), float32.
        geometry: Layer name to geometry, for the same layers.
        probe_name: Where the probe of this run came from, None if there was none.
        probe_digest: `Probe.digest`; equal digests mean comparable responses.
        versions: Package name to version, of the process that took the snapshot.
        health: Layer name to health, of the layers that were examined.
        feature_maps: Of the layers that do not read the image itself, at the size that they are
            drawn. They are in no file.
    """

    step: int
    epoch: int
    wall_time: float
    weights: Mapping[str, Tensor]
    geometry: Mapping[str, Geometry]
    probe_name: str | None = None
    probe_digest: str | None = None
    versions: Mapping[str, str] = field(
        default_factory=lambda: {
            "kernelviz_callback": __version__,
            "torch": str(torch.__version__),
        }
    )
    health: Mapping[str, KernelHealth] = field(default_factory=dict)
    feature_maps: FeatureMaps = field(default_factory=FeatureMaps)

    @property
    def tensors(self) -> list[Tensor]:
        """What it keeps on the device of the training."""
        maps = self.feature_maps.maps.values()
        return [*self.weights.values(), *(each.values for each in maps)]

    def _repr_html_(self) -> str:
        """The kernels of its layers, for a notebook."""
        when = f"step {self.step} · epoch {self.epoch}"
        pictures = {
            layer: kernel_picture(
                weights,
                layer=layer,
                groups=self.geometry[layer].groups,
                when=when,
                health=self.health.get(layer),
            )
            for layer, weights in list(self.weights.items())[:_MOST_SHOWN]
        }
        more = len(self.weights) - len(pictures)
        rest = f"<p>and {more} more layers</p>" if more else ""
        return rest + "".join(
            EncodedImage.png(picture.pixels).to_html(f"kernels of {layer}, {when}")
            for layer, picture in pictures.items()
        )
