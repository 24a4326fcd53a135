"""A layer through a training, cut down to what a film strip or an animation of it shows."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import expm1, log1p, prod, sqrt
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from kernelviz_callback.drawing.curves import curve_width, draw_curves
from kernelviz_callback.filters.measures import largest_magnitude, movement
from kernelviz_callback.filters.planes import MOST_CHANNELS, as_planes
from kernelviz_callback.filters.principal import principal_planes

ReelScale: TypeAlias = Literal["layer", "filter"]

MOST_SHOTS = 24  # a few seconds of animation, and twice the columns of a film strip
MOST_ROWS = 128  # filters in one picture: of more, none could be followed with the eye
_DIVERGED = 1000  # times the median shot's largest magnitude: no scale shows both
MOST_PIXELS = 12_288  # of the kernels in one shot, not enlarged: 101 of 11x11, 48 of 16x16
_CURVE_HEIGHT = 28  # pixels, not enlarged, of a curve that has a tile to itself; less of several
_COLUMN = 4  # pixels of a kernel of noise that take as many bytes as a column of a curve of noise
WIDEST_ROW = 168  # pixels: slices side by side, of which twelve rows have room in a film, ...
_BETWEEN = 2  # ... and the pixels between two


class Reading(NamedTuple):
    """What one snapshot or checkpoint holds: layer to filters, float32, on the CPU.

    Of one layer alone, ``name`` is what the checkpoint itself calls it.
    """

    epoch: int | None
    weights: Mapping[str, Tensor]
    name: str | None = None


class Shot(NamedTuple):
    """The drawn part of a layer at one step, laid out as by `as_planes`."""

    step: int
    epoch: int | None
    weights: Tensor


class Peak(NamedTuple):
    """The largest magnitude in a training, and when it was reached."""

    step: int
    magnitude: float


@dataclass(frozen=True)
class Cut:
    """Which part of a layer is drawn.

    Attributes:
        shape: Of the weights of the whole layer.
        filters: The filters that are drawn, ascending.
        channels: How many input channels, from the first on, are drawn; None for the principal
            plane (curve, volume) of all.
        slices: How many slices of a 3-D layer, from the first on; 1 of any other.
    """

    shape: tuple[int, ...]
    filters: tuple[int, ...]
    channels: int | None
    slices: int = 1

    @property
    def is_rgb(self) -> bool:
        """Whether each three channels of a kernel are one picture."""
        return self.shape[1] == 3 and len(self.shape) > 3

    @property
    def is_curve(self) -> bool:
        """Whether a kernel is a curve: in 1-D, but for the one tap of many channels."""
        _, channels, *kernel = self.shape
        return len(kernel) == 1 and (channels <= MOST_CHANNELS or kernel[0] > 1)

    @property
    def planes(self) -> int:
        """Pictures side by side in a tile."""
        return self.slices * (1 if self.is_rgb or self.channels is None else self.channels)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of each, not enlarged: a pixel a weight, but for curves."""
        *_, height, width = 1, *self.shape[2:]
        if not self.is_curve:
            return height, width
        height = 2 * round(_CURVE_HEIGHT / sqrt(self.planes) / 2)
        return height, curve_width(width, height)

    @property
    def pixels(self) -> int:
        """Of all drawn kernels together, not enlarged; of curves, as many as cost what they do."""
        height, width = self.picture_size
        return len(self.filters) * self.planes * (_COLUMN if self.is_curve else height) * width

    def of(self, weights: Tensor) -> Tensor:
        """Copy the part that is drawn, laid out as by `as_planes`."""
        drawn = weights[list(self.filters), : self.channels]
        if self.channels is None:
            drawn = principal_planes(drawn).planes
        drawn = drawn[:, :, : self.slices] if drawn.ndim == 5 else drawn
        return as_planes(drawn).float().contiguous()

    def pictures(self, weights: Tensor, half_ranges: Tensor) -> Tensor:
        """What is to be coloured of a shot: kernels as they are, curves drawn.

        Args:
            weights: Of the shot.
            half_ranges: Shape (filters,): the magnitude at the ends of each filter's colours.

        Returns:
            Shape (filters, planes, H, W) of `picture_size`; in RGB three times as many planes.
        """
        if not self.is_curve:
            return weights
        height, width = self.picture_size
        return draw_curves(weights[:, :, 0], half_ranges, height=height, width=width)


@dataclass(frozen=True)
class Reel:
    """The chosen snapshots of a layer.

    Attributes:
        layer: Its name.
        cut: Which part of it is drawn.
        shots: By their steps, the first and the last that could be read included.
        taken: How many snapshots there were to choose from.
        unread: How many of those that were chosen could not be read; others took their place.
        clipped: A step at which weights are far beyond the colours' ends, and how large they are.
    """

    layer: str
    cut: Cut
    shots: tuple[Shot, ...]
    taken: int
    unread: int = 0
    clipped: Peak | None = None

    def half_ranges(self, scale: ReelScale = "layer") -> Tensor:
        """The magnitude at the ends of each drawn filter's colours, the same in all shots.

        Args:
            scale: "layer", the largest of all; "filter", each filter's own. Shots that would let
                all others look grey do not count, see `usual_range`.

        Returns:
            Shape (filters,), float32.
        """
        return on_scale(usual_range(self.shots)[0], scale)

    def thinned(self, most: int) -> "Reel":
        """Keep no more than ``most`` shots, see `film_steps`."""
        kept = set(film_steps([shot.step for shot in self.shots], most))
        return replace(self, shots=tuple(shot for shot in self.shots if shot.step in kept))


def film_steps(steps: Sequence[int], most: int) -> list[int]:
    """Choose the steps that show a training best: early ones densely, for early changes are large.

    Args:
        steps: To choose from, in any order.
        most: How many to choose, at least 1; all if there are not more.

    Returns:
        Ascending, no step twice: the first, the last, and between them those nearest to equal
        ratios of step + 1. Of one, the last.

    Example:
        >>> film_steps(range(0, 1001), most=6)
        [0, 3, 15, 62, 250, 1000]
        >>> film_steps([0, 1, 2, 4, 8, 100, 200, 300, 400, 500], most=6)
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
        # Strictly ascending, and one is left for each that is still to come.
        place = min(max(nearest, place + 1), len(ordered) - most + k)
        chosen.append(ordered[place])
    return chosen


def gather_reels(
    steps: Sequence[int],
    read: Callable[[int], Reading],
    *,
    most: int = MOST_SHOTS,
    most_pixels: int = MOST_PIXELS,
    on_unread: Callable[[int, Exception], None] = lambda step, error: None,
) -> dict[str, Reel]:
    """Read the snapshots that show a training best, each once, and keep what is drawn of them.

    One that cannot be read is left out, and another chosen for it. Of more filters than fit, those
    that went furthest from the first snapshot to the last are kept: on one scale it is their change
    that can be seen.

    Args:
        steps: Of all snapshots there are.
        read: Reads the one of a step, or raises a `ValueError` or an `OSError`.
        most: Snapshots to choose, see `film_steps`.
        most_pixels: Of the kernels in one shot, before they are enlarged.
        on_unread: Told the step that could not be read, and why.

    Returns:
        Name to reel of each layer that the last readable snapshot has, in its order; empty if none
        can be read. Shots in which a layer is missing or has another shape are not in its reel.
    """
    readable = sorted(set(steps))
    taken = len(readable)

    def attempt(step: int) -> tuple[int, Reading] | None:
        try:
            return step, read(step)
        except (ValueError, OSError) as error:
            on_unread(step, error)
            readable.remove(step)
            return None

    first = next(filter(None, map(attempt, list(readable))), None)
    if first is None:
        return {}
    last = next(filter(None, map(attempt, readable[:0:-1])), first)
    cuts = {
        name: choose_cut(first[1].weights.get(name), weights, most_pixels)
        for name, weights in last[1].weights.items()
    }
    shots = {step: _shots(step, reading, cuts) for step, reading in (first, last)}
    del first, last
    while missing := [step for step in film_steps(readable, most) if step not in shots]:
        for step in missing:
            found = attempt(step)
            if found is not None:
                shots[step] = _shots(*found, cuts)
    chosen = [shots[step] for step in film_steps(readable, most)]
    return {
        name: _reel(
            name, cut, [shot[name] for shot in chosen if name in shot], taken, len(readable)
        )
        for name, cut in cuts.items()
    }


def choose_cut(first: Tensor | None, last: Tensor, most_pixels: int = MOST_PIXELS) -> Cut:
    """Choose the part of a layer that is drawn: all of it, if it fits.

    Args:
        first: The layer at the beginning, None if it was not there.
        last: At the end.
        most_pixels: Of all kernels together, before they are enlarged.
    """
    filters, channels, *kernel = last.shape
    cut = Cut(tuple(last.shape), (0,), 1)  # one filter, one channel, one slice
    if channels > MOST_CHANNELS and prod(kernel) > 1:
        cut = replace(cut, channels=None)
    elif cut.is_rgb:
        cut = replace(cut, channels=3)
    else:
        fitting = min(channels, MOST_CHANNELS, most_pixels // cut.pixels)
        cut = replace(cut, channels=max(1, fitting))
    if len(kernel) == 3:
        in_a_row = WIDEST_ROW // (cut.planes * (kernel[2] + _BETWEEN))
        fitting = min(kernel[0], in_a_row, most_pixels // cut.pixels)
        cut = replace(cut, slices=max(1, fitting))
    most = min(filters, MOST_ROWS, max(1, most_pixels // cut.pixels))
    chosen = list(range(filters))
    if most < filters:
        before = (
            first if first is not None and first.shape == last.shape else torch.zeros_like(last)
        )
        change = movement(last, before).change.nan_to_num(torch.inf, posinf=torch.inf)
        chosen = sorted(change.argsort(descending=True, stable=True)[:most].tolist())
    return replace(cut, filters=tuple(chosen))


def on_scale(largest: Tensor, scale: ReelScale) -> Tensor:
    """The ends of the colours of filters whose largest magnitude in all shots is ``largest``."""
    return largest if scale == "filter" else largest.amax().expand(len(largest))


def usual_range(shots: Iterable[Shot]) -> tuple[Tensor, Peak | None]:
    """The largest magnitude of each filter, but for shots of a training that has diverged.

    Args:
        shots: One at least; each is looked at once. Those whose largest magnitude is more than
            1,000 times that of the median shot do not count.

    Returns:
        Shape (filters,), float32, and the largest magnitude of what does not count.
    """
    steps, found = zip(*((s.step, largest_magnitude(s.weights)) for s in shots), strict=True)
    largest = torch.stack(found)
    peaks = largest.amax(1)
    is_usual = peaks <= _DIVERGED * peaks.median()
    if is_usual.all() or peaks.median() == 0:
        return largest.amax(0), None
    worst = int(peaks.argmax())
    return largest[is_usual].amax(0), Peak(steps[worst], peaks[worst].item())


def _nearest(ordered: Sequence[int], target: float) -> int:
    """The place of the step whose logarithm is nearest to ``target``, the earlier one of two."""
    after = min(max(bisect_left(ordered, expm1(target)), 1), len(ordered) - 1)
    below, above = log1p(ordered[after - 1]), log1p(ordered[after])
    return after - 1 if target - below <= above - target else after


def _reel(layer: str, cut: Cut, shots: Sequence[Shot], taken: int, readable: int) -> Reel:
    return Reel(layer, cut, tuple(shots), taken, taken - readable, usual_range(shots)[1])


def _shots(step: int, reading: Reading, cuts: Mapping[str, Cut]) -> dict[str, Shot]:
    return {
        name: Shot(step, reading.epoch, cuts[name].of(weights))
        for name, weights in reading.weights.items()
        if name in cuts and tuple(weights.shape) == cuts[name].shape
    }
