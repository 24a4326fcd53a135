"""The watched layers of one model: whether they are ready, what they weigh, a snapshot of them."""

import time
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from kernelviz_callback.drawing.layer_pictures import map_shrink
from kernelviz_callback.model.convolutions import (
    Convolution,
    find_convolutions,
    geometry_of,
    is_ready,
    weight_shape,
)
from kernelviz_callback.model.feature_maps import FeatureMaps, feature_maps
from kernelviz_callback.model.sharding import gather_weight, is_sharded, needs_others
from kernelviz_callback.model.weights import effective_weight
from kernelviz_callback.probe.probe import Probe, check_fit
from kernelviz_callback.snapshots.snapshot import Snapshot

# Where the pictures are made: beside the training. Other devices have no streams to share.
_DRAWING_DEVICES = ("cpu", "cuda")


class WatchedLayers:
    """The convolutions of a model that a callback watches.

    Args:
        model: Where the layers are looked for.
        layers: See `find_convolutions`.
        trained: The model with the strategy's wrappers around it; None where it has none.

    Raises:
        ValueError: See `find_convolutions`.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] | None = None,
        *,
        trained: nn.Module | None = None,
    ) -> None:
        self._model = _inner(model)
        self._layers = layers
        self._trained = trained if trained is not None else self._model
        self._find()

    @property
    def is_ready(self) -> bool:
        """Whether every layer has its weights: a lazy one waits for its first input."""
        return all(map(is_ready, self._convolutions.values()))

    @property
    def is_sharded(self) -> bool:
        """Whether `take` has to gather."""
        return bool(self._sharded)

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Layer name to the shape of its weights."""
        return {name: list(weight_shape(conv)) for name, conv in self._convolutions.items()}

    @property
    def reads_images(self) -> bool:
        """Whether any layer has a use for a probe."""
        return any(len(conv.kernel_size) > 1 for conv in self._convolutions.values())

    def __str__(self) -> str:
        return ", ".join(
            f"{name} ({filters} filters {'x'.join(map(str, shape))})"
            for name, (filters, *shape) in self.shapes.items()
        )

    def check_fit(self, probe: Probe) -> None:
        """Fail early if a probe fits neither the model nor a layer whose shape is known.

        Raises:
            ValueError: The message names the layer.
        """
        try:
            _check_fit(self._first, probe)
            if not self._needs_others:
                return  # the others have feature maps
        except ValueError:
            pass
        _check_fit(self._convolutions, probe)

    def take(self, *, step: int, epoch: int, probe: Probe, keep: bool) -> Snapshot | None:
        """Copy the weights as they are now, and run the model on the probe for deeper layers.

        Sharded layers are gathered, for which every process must call this at the same step. The
        process that keeps the snapshot runs the model alone: one that asks the others has no maps.

        Args:
            step: ``trainer.global_step``.
            epoch: ``trainer.current_epoch``.
            probe: Is named in the snapshot, and read by the model.
            keep: Whether this process wants the snapshot; the others get None.
        """
        if not self._is_current():
            self._find()
        gathered = self._gather()
        if not keep:
            return None
        maps = self._feature_maps(probe)
        weights = {
            name: _drawable(gathered[name] if name in gathered else effective_weight(conv))
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
        """Of every 2-D layer but the first, which reads the probe itself."""
        deeper: dict[str, nn.Module] = {
            name: conv
            for name, conv in self._convolutions.items()
            if isinstance(conv, nn.Conv2d) and name not in self._first
        }
        if not deeper:
            return FeatureMaps()
        [first] = self._first.values()
        reason = "the parameters of the model are spread over processes"
        if not self._needs_others:
            try:
                image = probe.for_channels(first.in_channels)
                return feature_maps(self._model, deeper, image, shrink=map_shrink)
            except Exception as error:  # not for this is a snapshot lost
                reason = f"{type(error).__name__}: {error}"
        return FeatureMaps(absent=dict.fromkeys(deeper, reason))

    def _find(self) -> None:
        self._convolutions = find_convolutions(self._model, self._layers)
        self._first = _reader(self._model)
        paths = {id(module): path for path, module in self._model.named_modules()}
        self._paths = {name: paths[id(conv)] for name, conv in self._convolutions.items()}
        self._sharded = [
            name for name, conv in self._convolutions.items() if is_sharded(conv, self._trained)
        ]
        self._needs_others = needs_others(self._model, self._trained)

    def _is_current(self) -> bool:
        """Whether the model still has the layers: its own hooks may put others in their place."""
        try:
            return all(
                self._model.get_submodule(path) is self._convolutions[name]
                for name, path in self._paths.items()
            )
        except AttributeError:
            return False

    def _gather(self) -> dict[str, Tensor]:
        """Put the sharded layers together, whatever happens to one: the others take part in all."""
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


def _inner(model: nn.Module) -> nn.Module:
    """The model that is trained on every process alike."""
    while isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        model = model.module
    return model


def _reader(model: nn.Module) -> dict[str, Convolution]:
    """The layer that reads the input of the model: its first, as far as it can be told.

    One of sound beside others of images or clips is no such: attention has it, or an embedding.
    """
    every = find_convolutions(model, "*")
    of_images = [name for name, conv in every.items() if len(conv.kernel_size) > 1]
    first = next(iter([*of_images, *every]))
    return {first: every[first]}


def _drawable(weight: Tensor) -> Tensor:
    return weight if weight.device.type in _DRAWING_DEVICES else weight.cpu()


def _check_fit(convolutions: Mapping[str, Convolution], probe: Probe) -> None:
    for name, conv in convolutions.items():
        if is_ready(conv):
            try:
                check_fit(weight_shape(conv), geometry_of(conv), probe)
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from None
