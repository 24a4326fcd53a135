"""The watched layers of one model: find them, and take snapshots of their weights."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from kernelviz_callback.console import say
from kernelviz_callback.filters.words import describe_filters
from kernelviz_callback.model.convolutions import geometry_of, is_ready, weight_shape
from kernelviz_callback.model.feature_maps import FeatureMaps, feature_maps
from kernelviz_callback.model.sharding import gather_kernel, is_sharded, needs_all_processes
from kernelviz_callback.model.weights import Kernel, read_kernel
from kernelviz_callback.probe.probe import Probe, check_fit, load_probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.layer_choice import choose_layers

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
        layers: See `choose_layers`.
        trained: The model inside the wrappers of the training strategy; None without a wrapper.
        map_shrink: By what whole factor to average feature maps of (filters, height, width), so
            that they fit a picture.
        optimizers: See `choose_layers`.
        probe: The image with which the model is run to find out which layer is the first. None for
            the chart.
        before: See `choose_layers`.

    Raises:
        ValueError: See `choose_layers`.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        trained: nn.Module | None = None,
        map_shrink: MapShrink = keep_map_size,
        optimizers: Iterable[Any] = (),
        probe: Probe | None = None,
        before: Iterable[str] = (),
    ) -> None:
        self._model = _unwrap(model)
        self._layers = layers
        self._map_shrink = map_shrink
        self._trained = trained if trained is not None else self._model
        self._optimizers = optimizers
        self._probe = probe
        self._before = list(before)
        self._has_run = False
        self._lazy: Sequence[nn.Module] = ()
        self._known_shapes: dict[str, list[int]] = {}
        self._find_layers()

    @property
    def is_ready(self) -> bool:
        """Whether every layer has weights. A lazy layer has none before its first input."""
        return all(map(is_ready, self._choice.layers.values())) and (
            not self._lazy or any(map(is_ready, self._lazy))
        )

    @property
    def is_sharded(self) -> bool:
        """Whether `take` has to gather weights from other processes."""
        return bool(self._sharded)

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Layer name to the shape of its weights."""
        return {name: list(weight_shape(layer)) for name, layer in self._choice.layers.items()}

    @property
    def reads_images(self) -> bool:
        """Whether any watched layer is 2-D or 3-D. A 1-D layer needs no probe."""
        return any(len(shape) > 3 for shape in self.shapes.values())

    @property
    def channels(self) -> int:
        """Number of channels of the images that the model reads."""
        return self._choice.channels

    def __str__(self) -> str:
        watched = ", ".join(
            f"{name} ({describe_filters(shape)})" for name, shape in self.shapes.items()
        )
        return "; ".join([watched, *self._choice.notes])

    def stop_waiting(self) -> None:
        """Wait no longer for lazy layers that got no input. Call it after the first batch."""
        if not any(map(is_ready, self._lazy)):
            self._lazy = ()

    def continue_with(self, names: Iterable[str]) -> None:
        """Watch the layer that the resumed training watched before, if it is there."""
        self._before = list(names)
        self._find_layers()

    def check_fit(self, probe: Probe) -> Probe:
        """Check that a probe fits the model, or else each watched layer.

        A probe that the first layer of the model can read is enough: the deeper layers then have
        feature maps. Layers without a known shape are not checked.

        Returns:
            The probe. The chart is drawn larger if the kernels of the first layer need it.

        Raises:
            ValueError: If a layer cannot read the probe. The message names the layer.
        """
        try:
            _check_fit(self._choice.first, probe)
            if not self._needs_other_processes:
                return self._covering(probe)
        except ValueError:
            pass
        _check_fit(self._choice.layers, probe)
        return self._covering(probe)

    def _covering(self, probe: Probe) -> Probe:
        [layer] = self._choice.first.values()
        if not is_ready(layer) or len(shape := weight_shape(layer)) == 3:
            return probe
        return probe.covering((shape[-2], shape[-1]), geometry_of(layer).plane_dilation)

    def take(
        self, *, step: int, epoch: int, probe: Probe, keep: bool, failures: Failures
    ) -> Snapshot | None:
        """Copy the current weights, and run the model on the probe to get feature maps.

        Every process must call this method at the same step, because sharded layers are gathered
        from all processes. Only the process that keeps the snapshot runs the model. A model that
        communicates with other processes therefore has no feature maps.

        Args:
            step: ``trainer.global_step``.
            epoch: ``trainer.current_epoch``.
            probe: The fixed image.
            keep: Whether this process keeps the snapshot.
            failures: Collects the reason for each layer whose weights cannot be read. The snapshot
                is without these layers.

        Returns:
            The snapshot; None if ``keep`` is False, or if no layer can be read.
        """
        if not self._is_current():
            if not any(map(is_ready, self._lazy)):
                self._before = list(self._choice.layers)
            self._has_run = True
            self._find_layers()
        kernels = self._read_kernels(failures, keep=keep)
        if not keep or not kernels:
            return None
        maps = self._feature_maps(probe)
        self._say_changed_shapes(kernels, step)
        weights = {name: _on_drawing_device(kernel.weight) for name, kernel in kernels.items()}
        device = next(iter(weights.values())).device
        return Snapshot(
            step=step,
            epoch=epoch,
            wall_time=time.time(),
            weights={name: weight.to(device) for name, weight in weights.items()},
            geometry={name: geometry_of(self._choice.layers[name]) for name in kernels},
            probe_name=probe.name,
            probe_digest=probe.digest,
            feature_maps=maps.to(device),
            stored_only={name: k.unknown for name, k in kernels.items() if k.unknown is not None},
        )

    def _feature_maps(self, probe: Probe) -> FeatureMaps:
        """Compute the feature maps of all 2-D layers but those that read the probe itself."""
        deeper = self._deeper
        if not deeper:
            return FeatureMaps()
        reason = "the parameters of the model are spread over processes"
        if not self._needs_other_processes:
            try:
                image = probe.for_channels(self._choice.channels)
                return feature_maps(self._model, deeper, image, shrink=self._map_shrink)
            except Exception as error:  # a failure here must not cost the snapshot
                reason = f"{type(error).__name__}: {error}"
        return FeatureMaps(absent=dict.fromkeys(deeper, reason))

    def _find_layers(self) -> None:
        self._needs_other_processes = needs_all_processes(self._model, self._trained)
        self._choice = choose_layers(
            self._model,
            self._layers,
            image_of=None if self._needs_other_processes else self._image_of,
            optimizers=self._optimizers,
            before=self._before,
        )
        waits = self._layers is None and not self._before and not self._has_run
        self._lazy = self._choice.lazy if waits else ()
        self._deeper = {
            name: layer
            for name, layer in self._choice.layers.items()
            if len(weight_shape(layer)) == 4 and name not in self._choice.readers
        }
        self._sharded = [
            name for name, layer in self._choice.layers.items() if is_sharded(layer, self._trained)
        ]

    def _image_of(self, channels: int | None) -> Tensor:
        if self._probe is None:
            self._probe = load_probe()
        return self._probe.image if channels is None else self._probe.for_channels(channels)

    def _say_changed_shapes(self, kernels: Mapping[str, Kernel], step: int) -> None:
        """Tell the user once about each layer whose weights have another shape than before."""
        for name, kernel in kernels.items():
            shape, known = list(kernel.weight.shape), self._known_shapes.get(name)
            if known not in (None, shape):
                say(
                    f"at step {step} {name} has {describe_filters(shape)}; it had "
                    f"{describe_filters(known)}. Pictures and numbers compare it with snapshots of "
                    "the same shape only"
                )
            self._known_shapes[name] = shape

    def _is_current(self) -> bool:
        """Whether the model still has these layers. A hook of the model may replace a layer."""
        if any(map(is_ready, self._lazy)):
            return False
        try:
            return all(
                self._model.get_submodule(path) is self._choice.layers[name]
                for name, path in self._choice.paths.items()
            )
        except AttributeError:
            return False

    def _read_kernels(self, failures: Failures, *, keep: bool) -> dict[str, Kernel]:
        """Read the weights of each layer.

        If one layer fails, the remaining ones are read all the same. For sharded layers this is
        necessary: the other processes take part in every gathering and would wait for this one.
        """
        kernels: dict[str, Kernel] = {}
        is_only = len(self._choice.layers) == 1
        left_out = "the layers that cannot be read are left out of the snapshots"
        losing = "snapshots are lost until the weights can be read" if is_only else left_out
        for name, layer in self._choice.layers.items():
            with failures.survive(f"read the weights of {name}", losing):
                if name in self._sharded:
                    kernels[name] = gather_kernel(layer, self._trained)
                elif keep:
                    kernels[name] = read_kernel(layer)
        return kernels


def _unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of data-parallel training."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module
    return model


def _on_drawing_device(weight: Tensor) -> Tensor:
    return weight if weight.device.type in _DRAWING_DEVICES else weight.cpu()


def _check_fit(layers: Mapping[str, nn.Module], probe: Probe) -> None:
    for name, layer in layers.items():
        if is_ready(layer):
            try:
                check_fit(weight_shape(layer), geometry_of(layer), probe)
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from None
