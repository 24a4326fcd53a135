"""Choose the snapshots of a training that are shown, and read the filters of each layer in them."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import expm1, log1p
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.drawing.animation.crop import MOST_PIXELS, Crop, choose_crop
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.filters.principal import ContinuousSigns

SequenceScale: TypeAlias = Literal["layer", "filter"]

MOST_FRAMES = 24  # a few seconds of animation, and twice the columns of a film strip
_DIVERGED = 1000  # times the median frame's largest magnitude: one scale cannot show both


class Reading(NamedTuple):
    """The weights in one snapshot or checkpoint.

    Attributes:
        epoch: Epoch of the snapshot, from 0; None if it is not known.
        weights: Layer name to filters, float32, on the CPU.
        name: Name of the layer in the checkpoint itself, if only one layer was read.
        unknown: Layer name to reason, for layers that may multiply with other weights than these,
            see `Kernel.unknown`.
    """

    epoch: int | None
    weights: Mapping[str, Tensor]
    name: str | None = None
    unknown: Mapping[str, str] = MappingProxyType({})


class Frame(NamedTuple):
    """The drawn part of a layer in one snapshot.

    Attributes:
        step: Step of the snapshot.
        epoch: Epoch of the snapshot, from 0; None if it is not known.
        weights: The drawn part of the weights, see `Crop.apply`.
    """

    step: int
    epoch: int | None
    weights: Tensor


class Peak(NamedTuple):
    """The largest magnitude in a training, and the step at which it was reached."""

    step: int
    magnitude: float


@dataclass(frozen=True)
class FilterSequence:
    """The filters of one layer in the chosen snapshots of a training.

    Attributes:
        layer: Name of the layer.
        crop: The part of the layer that is drawn.
        frames: One frame for each chosen snapshot, by ascending steps. The first and the last
            snapshot that could be read are among them.
        available: Number of snapshots that there were to choose from.
        unreadable: Number of chosen snapshots that could not be read; others replaced them.
        clipped: The step at which weights are far beyond the ends of the colour scale, and their
            largest magnitude; None if there is no such step.
        is_unknown: Whether the layer may multiply with other weights in one of the snapshots.
    """

    layer: str
    crop: Crop
    frames: tuple[Frame, ...]
    available: int
    unreadable: int = 0
    clipped: Peak | None = None
    is_unknown: bool = False

    def half_ranges(self, scale: SequenceScale = "layer") -> Tensor:
        """Return the magnitude at the ends of each filter's colour scale, the same in all frames.

        Args:
            scale: "layer" for the largest magnitude of all filters, "filter" for each filter's own.
                Frames of a diverged training do not count, see `typical_magnitudes`.

        Returns:
            Shape (filters,), float32.
        """
        return to_half_ranges(typical_magnitudes(self.frames)[0], scale)

    def thin_out(self, most: int) -> "FilterSequence":
        """Return a sequence with at most this many frames, see `choose_steps`."""
        kept = set(choose_steps([frame.step for frame in self.frames], most))
        return replace(self, frames=tuple(frame for frame in self.frames if frame.step in kept))


def choose_steps(steps: Sequence[int], most: int) -> list[int]:
    """Choose steps that show a training: dense at the beginning, where changes are large.

    Args:
        steps: Steps to choose from, in any order.
        most: Number of steps to choose, at least 1. If there are not more, all are chosen.

    Returns:
        Ascending steps without repetition: the first, the last, and between them those nearest to
        equal ratios of step + 1. If ``most`` is 1, the last step.

    Example:
        >>> choose_steps(range(0, 1001), most=6)
        [0, 3, 15, 62, 250, 1000]
        >>> choose_steps([0, 1, 2, 4, 8, 100, 200, 300, 400, 500], most=6)
        [0, 2, 8, 100, 200, 500]
    """
    ordered = sorted(set(steps))
    if len(ordered) <= most:
        return ordered
    if most == 1:
        return ordered[-1:]
    start, end = log1p(ordered[0]), log1p(ordered[-1])
    chosen: list[int] = []
    place = -1
    for k in range(most):
        nearest = _nearest(ordered, start + (end - start) * k / (most - 1))
        # Places ascend strictly, and one place is left for each step that is still to be chosen.
        place = min(max(nearest, place + 1), len(ordered) - most + k)
        chosen.append(ordered[place])
    return chosen


def read_sequences(
    steps: Sequence[int],
    read: Callable[[int], Reading],
    *,
    most: int = MOST_FRAMES,
    most_pixels: int = MOST_PIXELS,
    on_unreadable: Callable[[int, Exception], None] = lambda step, error: None,
) -> dict[str, FilterSequence]:
    """Read the snapshots that show a training, each once, and keep the part that is drawn.

    A snapshot that cannot be read is left out, and another one is chosen in its place. If a layer
    has too many filters, those that changed most from the first snapshot to the last are kept: all
    filters share a scale, and only large changes are visible on it.

    Args:
        steps: Steps of all snapshots.
        read: Reads the snapshot of a step, or raises a `ValueError` or an `OSError`.
        most: Number of snapshots to choose, see `choose_steps`.
        most_pixels: Pixels of the kernels in one frame, before they are enlarged.
        on_unreadable: Called with each step that could not be read, and the error.

    Returns:
        Layer name to sequence, for each layer of the last readable snapshot, in its order; empty if
        no snapshot can be read. A snapshot in which a layer is missing or has another shape has no
        frame in the layer's sequence.
    """
    readable = sorted(set(steps))
    available = len(readable)
    unknown: set[str] = set()

    def try_to_read(step: int) -> tuple[int, Reading] | None:
        try:
            reading = read(step)
        except (ValueError, OSError) as error:
            on_unreadable(step, error)
            readable.remove(step)
            return None
        unknown.update(reading.unknown)
        return step, reading

    first = next(filter(None, map(try_to_read, list(readable))), None)
    if first is None:
        return {}
    last = next(filter(None, map(try_to_read, readable[:0:-1])), first)
    crops = {
        name: choose_crop(first[1].weights.get(name), weights, most_pixels)
        for name, weights in last[1].weights.items()
    }
    frames = {step: _frames(step, reading, crops) for step, reading in (first, last)}
    del first, last  # so that no more than one file is in memory
    while missing := [step for step in choose_steps(readable, most) if step not in frames]:
        for step in missing:
            found = try_to_read(step)
            if found is not None:
                frames[step] = _frames(*found, crops)
    chosen = [frames[step] for step in choose_steps(readable, most)]
    sequences = {}
    for name, crop in crops.items():
        own = tuple(of_layers[name] for of_layers in chosen if name in of_layers)
        if crop.style.is_principal:
            signs = signs_of(own)
            own = tuple(with_signs(frame, signs) for frame in own)
        clipped = typical_magnitudes(own)[1]
        unreadable = available - len(readable)
        sequences[name] = FilterSequence(
            name, crop, own, available, unreadable, clipped, is_unknown=name in unknown
        )
    return sequences


def signs_of(frames: Iterable[Frame]) -> ContinuousSigns:
    """Find the signs of principal planes with which the frames are continuous."""
    signs = ContinuousSigns()
    for frame in frames:
        signs.add(frame.step, frame.weights)
    return signs


def with_signs(frame: Frame, signs: ContinuousSigns) -> Frame:
    """Return a frame of principal planes with other signs."""
    return frame._replace(weights=frame.weights * signs.of(frame.step)[:, None, None, None])


def to_half_ranges(largest: Tensor, scale: SequenceScale) -> Tensor:
    """Return the magnitude at the ends of each filter's colour scale.

    Args:
        largest: Largest magnitude of each filter in all frames, shape (filters,).
        scale: "layer" for one scale, "filter" for each filter's own.
    """
    return largest if scale == "filter" else largest.amax().expand(len(largest))


def typical_magnitudes(frames: Iterable[Frame]) -> tuple[Tensor, Peak | None]:
    """Find the largest magnitude of each filter, without the frames of a diverged training.

    Args:
        frames: At least one frame; each is read once. A frame whose largest magnitude is more than
            1,000 times that of the median frame does not count.

    Returns:
        Shape (filters,), float32, and the largest magnitude of the frames that do not count.
    """
    steps, found = zip(*((f.step, largest_magnitude(f.weights)) for f in frames), strict=True)
    largest = torch.stack(found)
    peaks = largest.amax(1)
    is_typical = peaks <= _DIVERGED * peaks.median()
    if is_typical.all() or peaks.median() == 0:
        return largest.amax(0), None
    worst = int(peaks.argmax())
    return largest[is_typical].amax(0), Peak(steps[worst], peaks[worst].item())


def _nearest(ordered: Sequence[int], target: float) -> int:
    """Index of the step whose logarithm is nearest to ``target``; of two, the earlier one."""
    after = min(max(bisect_left(ordered, expm1(target)), 1), len(ordered) - 1)
    below, above = log1p(ordered[after - 1]), log1p(ordered[after])
    return after - 1 if target - below <= above - target else after


def _frames(step: int, reading: Reading, crops: Mapping[str, Crop]) -> dict[str, Frame]:
    return {
        name: Frame(step, reading.epoch, crops[name].apply(weights))
        for name, weights in reading.weights.items()
        if name in crops and tuple(weights.shape) == crops[name].shape
    }
