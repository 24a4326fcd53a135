"""Compare one layer through checkpoints: of one training, of two, or of different networks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from kernelviz_callback.checkpoints.checkpoint import Checkpoint, open_checkpoint, plain_geometry
from kernelviz_callback.checkpoints.find import find_checkpoints
from kernelviz_callback.checkpoints.match_names import find_same_layer
from kernelviz_callback.checkpoints.stored_layers import Shape
from kernelviz_callback.comparison.comparison import Column, Comparison, Likeness, Match
from kernelviz_callback.comparison.labels import distinct_labels
from kernelviz_callback.comparison.matching import (
    Layer,
    assign,
    chance_correlation,
    chance_cosine,
    cosines,
    in_place,
    mean_matched,
    response_correlations,
)
from kernelviz_callback.comparison.milestones import milestones, places_to_keep
from kernelviz_callback.comparison.statements import TAKEN_FOR_IT, state
from kernelviz_callback.filters.measures import Movement, movement
from kernelviz_callback.filters.planes import why_no_image
from kernelviz_callback.health.examine import kernel_health
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.probe.probe import ProbeSource, load_probe
from kernelviz_callback.probe.probe_energy import ProbeEnergy, energy_under
from kernelviz_callback.storage import Location

Comparable: TypeAlias = Location | nn.Module | Checkpoint

# Pixels: enough to tell responses apart, a quarter of the work of the callback's chart.
_CHART_SIZE = 112
_PHOTO_SIZE = 224


def compare(
    *checkpoints: Comparable,
    layer: str | None = None,
    match: Match | None = None,
    probe: ProbeSource = None,
) -> Comparison:
    """Tell what changed between checkpoints of a training, or how alike two networks are.

    Args:
        checkpoints: Two or more, the first being what the others are compared with: whatever
            `open_checkpoint` takes. A folder or a glob stands for all its checkpoints, by their
            steps.
        layer: Its name in the first; None for the first convolution. The others' names are lined up
            with it.
        match: "index" takes filter i for filter i, "weights" and "responses" pair off the filters
            that are most alike; None finds out for each checkpoint.
        probe: See `load_probe`; what responses are compared on.

    Raises:
        ValueError: If there are fewer than two, one is damaged or has no such layer, or ``match``
            does not fit the shapes.
        FileNotFoundError: If one does not exist.

    Example:
        >>> one, other = nn.Conv2d(3, 16, 5), nn.Conv2d(3, 16, 5)
        >>> _ = other.load_state_dict(one.state_dict())
        >>> compare(one, other).last.drift
        0.0
    """
    named = [one for given in checkpoints for one in expand(given)]
    walk = CompareWalk(len(named), layer=layer, match=match, probe=probe)
    for given in named:
        walk.take(given)
    return walk.comparison()


def expand(given: Comparable) -> Sequence[Comparable]:
    """List the single checkpoints that an argument of `compare` stands for.

    Raises:
        FileNotFoundError: If there are none.
    """
    return [given] if isinstance(given, Checkpoint | nn.Module) else find_checkpoints(given)


class CompareWalk:
    """Compares checkpoints one by one and keeps of most only numbers: memory does not grow.

    Args:
        count: How many are to come.
        layer: See `compare`; likewise the others.
    """

    def __init__(
        self,
        count: int,
        *,
        layer: str | None = None,
        match: Match | None = None,
        probe: ProbeSource = None,
    ) -> None:
        self.probe = load_probe(probe, size=_CHART_SIZE if probe is None else _PHOTO_SIZE)
        self._layer = layer
        self._match = match
        self._count = count
        self._places: list[int] = []  # of the columns, among all that were to come
        self._taken = 0
        self._columns: list[Column] = []
        self._first: _Taken | None = None
        self._previous: _Taken | None = None
        self._chances: dict[tuple[Shape, Geometry], float] = {}
        self._energies: dict[tuple[Shape, Geometry], ProbeEnergy | str] = {}

    def take(self, given: Comparable) -> None:
        """Read the layer of the next checkpoint and compare it with those before.

        Raises:
            ValueError: See `compare`. The checkpoint is left out then; others may follow.
            OSError: If it cannot be read.
        """
        self._taken += 1
        checkpoint = given if isinstance(given, Checkpoint) else open_checkpoint(given)
        now = self._read(checkpoint)
        first = self._first or now
        column = self._compare(now, first)
        if len(self._columns) > 1:  # the last is kept until another comes: it may be the very last
            kept = places_to_keep(self._count, first.layer.weights.nbytes)
            if self._places[-1] not in kept:
                self._columns[-1] = replace(self._columns[-1], weights=None)
        self._columns.append(column)
        self._places.append(self._taken - 1)
        self._first = first
        self._previous = now

    def comparison(self) -> Comparison:
        """What was found.

        Raises:
            ValueError: If fewer than two checkpoints were taken.
        """
        if len(self._columns) < 2:
            raise ValueError(
                f"expected two or more checkpoints to compare; found {len(self._columns)}"
            )
        labels = distinct_labels([column.name for column in self._columns])
        pictured = milestones(self._columns)
        columns = tuple(
            replace(column, label=label, weights=column.weights if i in pictured else None)
            for i, (column, label) in enumerate(zip(self._columns, labels, strict=True))
        )
        return Comparison(columns, state(columns, asked=self._match is not None))

    def _read(self, checkpoint: Checkpoint) -> "_Taken":
        first = self._first
        if first is None:
            name = checkpoint.resolve(self._layer)
        else:
            name = find_same_layer(checkpoint, self._layer, first.name, first.shape)
        stored = checkpoint.layers[name]
        if first is not None and len(first.shape) != len(stored.shape):
            raise ValueError(
                f"{name!r} of {checkpoint.name} has {len(stored.shape) - 2} dimensions and "
                f"{first.name!r} of {first.checkpoint.name} {len(first.shape) - 2}; name a layer "
                "of a kind that both have"
            )
        geometry = stored.geometry
        if geometry is None:
            geometry = plain_geometry(stored.shape)
            if first and first.shape == stored.shape:
                geometry = first.layer.geometry
        layer = Layer(checkpoint.read(name), geometry)
        return _Taken(checkpoint, name, layer, tells_geometry=stored.geometry is not None)

    def _compare(self, now: "_Taken", first: "_Taken") -> Column:
        notes: list[str] = []
        correlations = self._correlations(now, first, notes)
        match, now.partner = self._pair_off(now, first, correlations, notes)
        to_first, to_previous = _moved(now, first), _moved(now, self._previous or now)
        responses_alike = None
        if now is not first and correlations is not None:
            responses_alike = Likeness(mean_matched(correlations), self._chance(now, first))
        return Column(
            name=now.checkpoint.name,
            label=now.checkpoint.name,
            layer=now.name,
            step=now.checkpoint.step,
            epoch=now.checkpoint.epoch,
            geometry=now.layer.geometry,
            shape=now.shape,
            match=match,
            partner=now.partner,
            cosine_to_first=to_first.cosine,
            change_from_first=to_first.relative,
            cosine_to_previous=to_previous.cosine,
            change_from_previous=to_previous.relative,
            correlation=_of_partners(correlations, now.partner),
            drift=to_first.drift,
            weights_alike=None if now is first else _weights_alike(now, first),
            responses_alike=responses_alike,
            health=self._examine(now, first, match),
            weights=now.layer.weights,
            notes=tuple(notes),
        )

    def _correlations(self, now: "_Taken", first: "_Taken", notes: list[str]) -> Tensor | None:
        one = first.layer
        if now.tells_geometry and not first.tells_geometry and now.shape == first.shape:
            one = Layer(one.weights, now.layer.geometry)
        try:
            return response_correlations(one, now.layer, self.probe)
        except ValueError as error:
            notes.append(f"responses cannot be compared: {error}")
            return None

    def _pair_off(
        self, now: "_Taken", first: "_Taken", correlations: Tensor | None, notes: list[str]
    ) -> tuple[Match, Tensor]:
        same = torch.arange(first.shape[0])
        if now is first:
            return "index", same
        self._check_match(now, first)
        if self._match == "index":
            return "index", same
        if self._match == "responses" or now.shape[1:] != first.shape[1:]:
            if correlations is None:
                is_weighable = now.shape[1:] == first.shape[1:]
                advice = (
                    'use match="weights"'
                    if is_weighable
                    else f"nothing else can be of layers of shape {first.shape} and {now.shape}"
                )
                raise ValueError(f"{now.checkpoint.name}: {notes[-1]}; {advice}")
            return "responses", assign(correlations)
        alike = _cosines(first, now)
        if self._match == "weights" or now.shape != first.shape:
            return "weights", assign(alike)
        is_in_place = in_place(alike)
        if is_in_place is None:
            notes.append(TAKEN_FOR_IT)
        if is_in_place is not False:
            return "index", same
        before = self._previous
        if before and before.shape == now.shape and in_place(_cosines(before, now)):
            # The next of a training that was followed so far, whatever is left of the first.
            return self._columns[-1].match, before.partner
        return "weights", assign(alike)

    def _check_match(self, now: "_Taken", first: "_Taken") -> None:
        is_fitting = {
            "index": now.shape == first.shape,
            "weights": now.shape[1:] == first.shape[1:],
        }
        if self._match and not is_fitting.get(self._match, True):
            reason = why_no_image(first.shape) or why_no_image(now.shape)
            others = 'use match="responses"'
            if reason is not None:
                others = (
                    'use match="weights"'
                    if is_fitting["weights"]
                    else f"nor can their responses, {reason}"
                )
            raise ValueError(
                f"{now.checkpoint.name}: match={self._match!r} cannot pair off filters of shape "
                f"{first.shape} and {now.shape}; {others}"
            )

    def _chance(self, now: "_Taken", first: "_Taken") -> float:
        key = now.shape, now.layer.geometry
        if key not in self._chances:
            one = first.shape, first.layer.geometry
            self._chances[key] = chance_correlation(one, key, self.probe)
        return self._chances[key]

    def _examine(self, now: "_Taken", first: "_Taken", match: Match) -> KernelHealth:
        geometry = now.layer.geometry
        key = now.shape, geometry
        if key not in self._energies:
            self._energies[key] = energy_under(
                self.probe, now.shape, dilation=geometry.plane_dilation, groups=geometry.groups
            )
        before = self._previous
        if match != "index" or (before and not torch.equal(before.partner, now.partner)):
            before = None
        steps = (c.checkpoint.step if c else None for c in (before, now))
        return kernel_health(
            now.layer.weights,
            now.name,
            first=first.layer.weights if match == "index" and now is not first else None,
            previous=before.layer.weights if before else None,
            steps_since_previous=_between(*steps),
            energy=self._energies[key],
            groups=now.layer.geometry.groups,
        )


@dataclass(eq=False)
class _Taken:
    """A layer out of a checkpoint, and the filters of it that are the first's 0, 1, 2, ..."""

    checkpoint: Checkpoint
    name: str
    layer: Layer
    tells_geometry: bool
    partner: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    @property
    def shape(self) -> Shape:
        return tuple(self.layer.weights.shape)


def _moved(now: _Taken, then: _Taken) -> Movement:
    """How far the partners of the first's filters went from one checkpoint to another."""
    paired = (now.partner >= 0) & (then.partner >= 0)
    if now.shape[1:] != then.shape[1:] or now is then or not paired.any():
        missing = torch.full((len(now.partner),), torch.nan)
        return Movement(missing, missing, missing, torch.nan)
    moved = movement(
        now.layer.weights[now.partner[paired]], then.layer.weights[then.partner[paired]]
    )
    change, relative, cosine = (_spread_out(values, paired) for values in moved[:3])
    return Movement(change, relative, cosine, moved.drift)


def _spread_out(values: Tensor, where: Tensor) -> Tensor:
    whole = torch.full((len(where),), torch.nan)
    whole[where] = values.float()
    return whole


def _of_partners(similarity: Tensor | None, partner: Tensor) -> Tensor:
    if similarity is None:
        return torch.full((len(partner),), torch.nan)
    paired = partner >= 0
    return _spread_out(similarity[paired, partner[paired]], paired)


def _cosines(one: _Taken, other: _Taken) -> Tensor:
    return cosines(one.layer.weights, other.layer.weights)


def _weights_alike(now: _Taken, first: _Taken) -> Likeness | None:
    if now.shape[1:] != first.shape[1:]:
        return None
    chance = chance_cosine(first.shape, now.shape)
    return Likeness(mean_matched(_cosines(first, now)), chance)


def _between(earlier: int | None, later: int | None) -> int | None:
    return None if earlier is None or later is None else later - earlier
