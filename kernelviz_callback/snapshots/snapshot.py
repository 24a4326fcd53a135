"""The record of a snapshot: the exact weights of the watched layers at one step."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernelviz_callback._version import __version__
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.model.feature_maps import FeatureMaps


@dataclass(frozen=True)
class Snapshot:
    """The watched layers at one step of a training.

    Attributes:
        step: Number of optimizer steps taken, ``trainer.global_step``.
        epoch: ``trainer.current_epoch``, counted from 0.
        wall_time: Time when the snapshot was taken, in seconds since 1970.
        weights: Layer name to filters, shape (N, C, kH, kW), float32.
        geometry: Layer name to geometry, for the same layers.
        probe_name: Where the probe of this training came from, None if there was no probe.
        probe_digest: `Probe.digest`. Responses are comparable if the digests are equal.
        versions: Package name to version, in the process that took the snapshot.
        health: Layer name to health, for the layers that were examined.
        feature_maps: Feature maps of the layers that do not read the image itself, at the size at
            which they are drawn. They are not written to a file.
        stored_only: Layer name to reason, for layers whose weights could not be measured, see
            `Kernel.unknown`. Their weights are those that the layer stores.
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
    stored_only: Mapping[str, str] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors of the snapshot that are on the device of the training."""
        maps = self.feature_maps.maps.values()
        return [*self.weights.values(), *(each.values for each in maps)]

    def _repr_html_(self) -> str:
        """Show the kernels of the layers in a notebook."""
        # Imported here, so that a snapshot can be read without the code that draws.
        from kernelviz_callback.snapshots.html import kernels_html

        when = f"step {self.step} · epoch {self.epoch}"
        return kernels_html(
            self.weights, self.geometry, self.health, when=when, stored_only=self.stored_only
        )
