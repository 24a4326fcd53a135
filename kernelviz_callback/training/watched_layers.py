"""The watched layers of one model: find them, and take snapshots of their weights."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor, nn

from kernelviz_callback.model.convolutions import (
    Convolution,
    find_convolutions,
    geometry_of,
    is_ready,
    weight_shape,
)
from kernelviz_callback.model.feature_maps import FeatureMaps, feature_maps
from kernelviz_callback.model.sharding import gather_weight, is_sharded, needs_all_processes
from kernelviz_callback.model.weights import effective_weight
from kernelviz_callback.probe.probe import Probe, check_fit
from kernelviz_callback.snapshots.snapshot import Snapshot

# By what whole factor to average feature maps, given the number of filters, height and width.
MapShrink: TypeAlias = Callable[[int, int, int], int]

# Devices on which pictures are computed. Weights on other devices are copied to the CPU.
_DRAWING_DEVICES = ("cpu", "cuda")


def keep_map_size(filters: int, height: int, width: int) -> int:
    """Do not average feature maps: the factor is 1 for every size."""
    return 1


class WatchedLayers:
    """The watched convolutions of one model.

    Args:
        model: The model that has the layers.
        layers: See `find_convolutions`.
        trained: The model inside the wrappers of the training strategy; None without a wrapper.
        map_shrink: By what whole factor to average feature maps of (filters, height, width), so
            that they fit a picture.

    Raises:
        ValueError: See `find_convolutions`.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        trained: nn.Module | None = None,
        map_shrink: MapShrink = keep_map_size,
    ) -> None:
        self._model = _unwrap(model)
        self._layers = layers
        self._map_shrink = map_shrink
        self._trained = trained if trained is not None else self._model
        self._find_layers()

    @property
    def is_ready(self) -> bool:
        """Whether every layer has weights. A lazy layer has none before its first input."""
        return all(map(is_ready, self._convolutions.values()))

    @property
    def is_sharded(self) -> bool:
        """Whether `take` has to gather weights from other processes."""
        return bool(self._sharded)

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Layer name to the shape of its weights."""
        return {name: list(weight_shape(conv)) for name, conv in self._convolutions.items()}

    @property
    def reads_images(self) -> bool:
        """Whether any watched layer is 2-D or 3-D. A 1-D layer needs no probe."""
        return any(len(conv.kernel_size) > 1 for conv in self._convolutions.values())

    def __str__(self) -> str:
        return ", ".join(
            f"{name} ({filters} filters {'x'.join(map(str, shape))})"
            for name, (filters, *shape) in self.shapes.items()
        )

    def check_fit(self, probe: Probe) -> None:
        """Check that a probe fits the model, or else each watched layer.

        A probe that the first layer of the model can read is enough: the deeper layers then have
        feature maps. Layers without a known shape are not checked.

        Raises:
            ValueError: If a layer cannot read the probe. The message names the layer.
        """
        try:
            _check_fit(self._first, probe)
            if not self._needs_other_processes:
                return
        except ValueError:
            pass
        _check_fit(self._convolutions, probe)

    def take(self, *, step: int, epoch: int, probe: Probe, keep: bool) -> Snapshot | None:
        """Copy the current weights, and run the model on the probe to get feature maps.

        Every process must call this method at the same step, because sharded layers are gathered
        from all processes. Only the process that keeps the snapshot runs the model. A model that
        communicates with other processes therefore has no feature maps.

        Args:
            step: ``trainer.global_step``.
            epoch: ``trainer.current_epoch``.
            probe: The fixed image.
            keep: Whether this process keeps the snapshot.

        Returns:
            The snapshot; None if ``keep`` is False.
        """
        if not self._is_current():
            self._find_layers()
        gathered = self._gather()
        if not keep:
            return None
        maps = self._feature_maps(probe)
        weights = {
            name: _on_drawing_device(gathered[name] if name in gathered else effective_weight(conv))
            for name, conv in self._convolutions.items()
        }
        device = next(iter(weights.values())).device
        return Snapshot(
            step=step,
            epoch=epoch,
            wall_time=time.time(),
            weights={name: weight.to(device) for name, weight in weights.items()},
            geometry={name: geometry_of(conv) for name, conv in self._convolutions.items()},
            probe_name=probe.name,
            probe_digest=probe.digest,
            feature_maps=maps.to(device),
        )

    def _feature_maps(self, probe: Probe) -> FeatureMaps:
        """Compute the feature maps of all 2-D layers but the first, which reads the probe."""
        deeper: dict[str, nn.Module] = {
            name: conv
            for name, conv in self._convolutions.items()
            if isinstance(conv, nn.Conv2d) and name not in self._first
        }
        if not deeper:
            return FeatureMaps()
        [first] = self._first.values()
        reason = "the parameters of the model are spread over processes"
        if not self._needs_other_processes:
            try:
                image = probe.for_channels(first.in_channels).contiguous()
                return feature_maps(self._model, deeper, image, shrink=self._map_shrink)
            except Exception as error:  # a failure here must not cost the snapshot
                reason = f"{type(error).__name__}: {error}"
        return FeatureMaps(absent=dict.fromkeys(deeper, reason))

    def _find_layers(self) -> None:
        self._convolutions = find_convolutions(self._model, self._layers)
        self._first = _first_layer(self._model)
        paths = {id(module): path for path, module in self._model.named_modules()}
        self._paths = {name: paths[id(conv)] for name, conv in self._convolutions.items()}
        self._sharded = [
            name for name, conv in self._convolutions.items() if is_sharded(conv, self._trained)
        ]
        self._needs_other_processes = needs_all_processes(self._model, self._trained)

    def _is_current(self) -> bool:
        """Whether the model still has these layers. A hook of the model may replace a layer."""
        try:
            return all(
                self._model.get_submodule(path) is self._convolutions[name]
                for name, path in self._paths.items()
            )
        except AttributeError:
            return False

    def _gather(self) -> dict[str, Tensor]:
        """Gather the weights of the sharded layers.

        If one layer fails, the remaining ones are gathered all the same, because the other
        processes take part in every gathering and would wait for this one.
        """
        gathered: dict[str, Tensor] = {}
        errors: list[Exception] = []
        for name in self._sharded:
            try:
                gathered[name] = gather_weight(self._convolutions[name], self._trained)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return gathered


def _unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of data-parallel training."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module
    return model


def _first_layer(model: nn.Module) -> dict[str, Convolution]:
    """Find the layer that reads the input of the model: its first 2-D or 3-D convolution.

    1-D layers count only if the model has no others. A 1-D layer beside 2-D or 3-D layers usually
    belongs to attention or to an embedding.
    """
    every = find_convolutions(model, "*")
    of_images = [name for name, conv in every.items() if len(conv.kernel_size) > 1]
    first = next(iter([*of_images, *every]))
    return {first: every[first]}


def _on_drawing_device(weight: Tensor) -> Tensor:
    return weight if weight.device.type in _DRAWING_DEVICES else weight.cpu()


def _check_fit(convolutions: Mapping[str, Convolution], probe: Probe) -> None:
    for name, conv in convolutions.items():
        if is_ready(conv):
            try:
                check_fit(weight_shape(conv), geometry_of(conv), probe)
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from None
