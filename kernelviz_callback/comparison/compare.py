"""Compare one layer in checkpoints of one training, of two trainings, or of different networks."""

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
    check_filter_count,
    cosines,
    has_same_order,
    mean_matched,
    response_correlations,
)
from kernelviz_callback.comparison.milestones import choose_pictured, indices_to_keep
from kernelviz_callback.comparison.statements import ORDER_ASSUMED, make_statements
from kernelviz_callback.filters.measures import Movement, movement
from kernelviz_callback.filters.planes import why_no_image
from kernelviz_callback.health.examine import kernel_health
from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.probe.probe import ProbeSource, load_probe
from kernelviz_callback.probe.probe_energy import ProbeEnergy, energy_for_layer
from kernelviz_callback.storage import Location

Comparable: TypeAlias = Location | nn.Module | Checkpoint

# Side of the default probe, in pixels. This is half the side of the callback's chart: the work is a
# quarter, and the responses of different filters still differ enough.
_CHART_SIZE = 112
_PHOTO_SIZE = 224  # pixels: largest side of an image that the user gives


def compare(
    *checkpoints: Comparable,
    layer: str | None = None,
    match: Match | None = None,
    probe: ProbeSource = None,
) -> Comparison:
    """Find what changed between checkpoints of a training, or how similar two networks are.

    Args:
        checkpoints: Two or more checkpoints, in any form that `open_checkpoint` accepts. The first
            is compared with each of the others. A folder or a glob means all checkpoints in it, in
            the order of their steps.
        layer: Name of the layer in the first checkpoint, None for the first convolution. In the
            others, the layer with the corresponding name is used.
        match: How filters are matched: "index" matches filter i with filter i, "weights" and
            "responses" match the filters that are most similar. If None, one of the three is chosen
            for each checkpoint.
        probe: Image on which responses are compared, see `load_probe`.

    Raises:
        ValueError: If there are fewer than two checkpoints, a checkpoint is damaged or does not
            have the layer, or ``match`` does not fit the shapes.
        FileNotFoundError: If a checkpoint does not exist.

    Example:
        >>> one, other = nn.Conv2d(3, 16, 5), nn.Conv2d(3, 16, 5)
        >>> _ = other.load_state_dict(one.state_dict())
        >>> compare(one, other).last.drift
        0.0
    """
    expanded = [checkpoint for given in checkpoints for checkpoint in expand(given)]
    comparer = Comparer(len(expanded), layer=layer, match=match, probe=probe)
    for checkpoint in expanded:
        comparer.add(checkpoint)
    return comparer.result()


def expand(given: Comparable) -> Sequence[Comparable]:
    """List the checkpoints that one argument of `compare` means.

    Raises:
        FileNotFoundError: If there are no such checkpoints.
    """
    return [given] if isinstance(given, Checkpoint | nn.Module) else find_checkpoints(given)


class Comparer:
    """Compares checkpoints one by one.

    If the weights of all checkpoints together are large, most of them are dropped after the
    comparison, so that memory does not grow with the number of checkpoints.

    Attributes:
        probe: The loaded probe.

    Args:
        count: Number of checkpoints that will be added, including those that fail.
        layer: See `compare`.
        match: See `compare`.
        probe: See `compare`.
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
        self._indices: list[int] = []  # for each column, its index among all checkpoints
        self._added = 0
        self._columns: list[Column] = []
        self._first: _LayerWeights | None = None
        self._previous: _LayerWeights | None = None
        self._chances: dict[tuple[Shape, Geometry], float] = {}
        self._energies: dict[tuple[Shape, Geometry], ProbeEnergy | str] = {}

    def add(self, given: Comparable) -> None:
        """Read the layer in the next checkpoint and compare it with the earlier checkpoints.

        Raises:
            ValueError: See `compare`. This checkpoint is then left out; others can still be added.
            OSError: If the checkpoint cannot be read.
        """
        self._added += 1
        checkpoint = given if isinstance(given, Checkpoint) else open_checkpoint(given)
        now = self._read(checkpoint)
        first = self._first or now
        column = self._compare(now, first)
        # The weights of the last checkpoint are always kept. Only now is it certain that the
        # previous column is not the last one.
        if len(self._columns) > 1:
            kept = indices_to_keep(self._count, first.layer.weights.nbytes)
            if self._indices[-1] not in kept:
                self._columns[-1] = replace(self._columns[-1], weights=None)
        self._columns.append(column)
        self._indices.append(self._added - 1)
        self._first = first
        self._previous = now

    def result(self) -> Comparison:
        """Return the comparison of all checkpoints that were added.

        Raises:
            ValueError: If fewer than two checkpoints could be added.
        """
        if len(self._columns) < 2:
            raise ValueError(
                f"expected two or more checkpoints to compare; found {len(self._columns)}"
            )
        labels = distinct_labels([column.name for column in self._columns])
        pictured = choose_pictured(self._columns)
        columns = tuple(
            replace(column, label=label, weights=column.weights if i in pictured else None)
            for i, (column, label) in enumerate(zip(self._columns, labels, strict=True))
        )
        return Comparison(columns, make_statements(columns, is_chosen=self._match is not None))

    def _read(self, checkpoint: Checkpoint) -> "_LayerWeights":
        first = self._first
        if first is None:
            name = checkpoint.resolve(self._layer)
        else:
            name = find_same_layer(checkpoint, self._layer, first.name, first.shape)
        stored = checkpoint.layers[name]
        check_filter_count(f"{checkpoint.name}: {name}", stored.shape[0])
        if first is not None and len(first.shape) != len(stored.shape):
            raise ValueError(
                f"{name!r} of {checkpoint.name} has {len(stored.shape) - 2} dimensions and "
                f"{first.name!r} of {first.checkpoint.name} has {len(first.shape) - 2}; name a "
                "layer that has the same number of dimensions in both"
            )
        geometry = stored.geometry
        if geometry is None:
            geometry = plain_geometry(stored.shape)
            if first and first.shape == stored.shape:
                geometry = first.layer.geometry
        layer = Layer(checkpoint.read(name), geometry)
        return _LayerWeights(checkpoint, name, layer, has_geometry=stored.geometry is not None)

    def _compare(self, now: "_LayerWeights", first: "_LayerWeights") -> Column:
        notes = now.checkpoint.remarks(self._layer) if now is first else []
        correlations = self._correlations(now, first, notes)
        match, now.partner = self._match_filters(now, first, correlations, notes)
        to_first, to_previous = _movement(now, first), _movement(now, self._previous or now)
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
            correlation=_partner_values(correlations, now.partner),
            drift=to_first.drift,
            weights_alike=None if now is first else _likeness_of_weights(now, first),
            responses_alike=responses_alike,
            health=self._examine(now, first, match),
            weights=now.layer.weights,
            notes=tuple(notes),
        )

    def _correlations(
        self, now: "_LayerWeights", first: "_LayerWeights", notes: list[str]
    ) -> Tensor | None:
        one = first.layer
        if now.has_geometry and not first.has_geometry and now.shape == first.shape:
            one = Layer(one.weights, now.layer.geometry)
        try:
            return response_correlations(one, now.layer, self.probe)
        except ValueError as error:
            notes.append(f"responses cannot be compared: {error}")
            return None

    def _match_filters(
        self,
        now: "_LayerWeights",
        first: "_LayerWeights",
        correlations: Tensor | None,
        notes: list[str],
    ) -> tuple[Match, Tensor]:
        unchanged = torch.arange(first.shape[0], device="cpu")
        if now is first:
            return "index", unchanged
        self._check_match(now, first)
        if self._match == "index":
            return "index", unchanged
        if self._match == "responses" or now.shape[1:] != first.shape[1:]:
            if correlations is None:
                has_same_kernels = now.shape[1:] == first.shape[1:]
                advice = (
                    'use match="weights"'
                    if has_same_kernels
                    else f"layers of shape {first.shape} and {now.shape} cannot be compared at all"
                )
                raise ValueError(f"{now.checkpoint.name}: {notes[-1]}; {advice}")
            return "responses", assign(correlations)
        similarity = _cosines(first, now)
        if self._match == "weights" or now.shape != first.shape:
            return "weights", assign(similarity)
        is_same_order = has_same_order(similarity)
        if is_same_order is None:
            notes.append(ORDER_ASSUMED)
        if is_same_order is not False:
            return "index", unchanged
        before = self._previous
        if before and before.shape == now.shape and has_same_order(_cosines(before, now)):
            # This checkpoint continues the training of the previous checkpoint. Its filters have
            # the same partners, even if they are no longer similar to the first checkpoint's.
            return self._columns[-1].match, before.partner
        return "weights", assign(similarity)

    def _check_match(self, now: "_LayerWeights", first: "_LayerWeights") -> None:
        can_match = {
            "index": now.shape == first.shape,
            "weights": now.shape[1:] == first.shape[1:],
        }
        if self._match and not can_match.get(self._match, True):
            reason = why_no_image(first.shape) or why_no_image(now.shape)
            advice = 'use match="responses"'
            if reason is not None:
                advice = (
                    'use match="weights"'
                    if can_match["weights"]
                    else f"their responses cannot be compared either: {reason}"
                )
            raise ValueError(
                f"{now.checkpoint.name}: match={self._match!r} cannot match filters of shape "
                f"{first.shape} and {now.shape}; {advice}"
            )

    def _chance(self, now: "_LayerWeights", first: "_LayerWeights") -> float:
        key = now.shape, now.layer.geometry
        if key not in self._chances:
            one = first.shape, first.layer.geometry
            self._chances[key] = chance_correlation(one, key, self.probe)
        return self._chances[key]

    def _examine(self, now: "_LayerWeights", first: "_LayerWeights", match: Match) -> KernelHealth:
        geometry = now.layer.geometry
        key = now.shape, geometry
        if key not in self._energies:
            self._energies[key] = energy_for_layer(
                self.probe, now.shape, dilation=geometry.plane_dilation, groups=geometry.groups
            )
        before = self._previous
        if match != "index" or (before and not torch.equal(before.partner, now.partner)):
            before = None
        earlier, later = (c.checkpoint.step if c else None for c in (before, now))
        return kernel_health(
            now.layer.weights,
            now.name,
            first=first.layer.weights if match == "index" and now is not first else None,
            previous=before.layer.weights if before else None,
            steps_since_previous=None if earlier is None or later is None else later - earlier,
            energy=self._energies[key],
            groups=now.layer.geometry.groups,
        )


@dataclass(eq=False)
class _LayerWeights:
    """A layer in one checkpoint.

    ``partner[i]`` is the index of the filter of this layer that is matched with filter i of the
    first checkpoint, or -1 if there is none.
    """

    checkpoint: Checkpoint
    name: str
    layer: Layer
    has_geometry: bool
    partner: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long, device="cpu"))

    @property
    def shape(self) -> Shape:
        return tuple(self.layer.weights.shape)


def _movement(now: _LayerWeights, then: _LayerWeights) -> Movement:
    """Measure how the partners of the first filters changed between ``then`` and ``now``."""
    paired = (now.partner >= 0) & (then.partner >= 0)
    if now.shape[1:] != then.shape[1:] or now is then or not paired.any():
        missing = torch.full((len(now.partner),), torch.nan, dtype=torch.float32, device="cpu")
        return Movement(missing, missing, missing, torch.nan)
    moved = movement(
        now.layer.weights[now.partner[paired]], then.layer.weights[then.partner[paired]]
    )
    change, relative, cosine = (_fill_in(values, paired) for values in moved[:3])
    return Movement(change, relative, cosine, moved.drift)


def _fill_in(values: Tensor, where: Tensor) -> Tensor:
    """Return a tensor that has ``values`` where ``where`` is True, and NaN elsewhere."""
    filled = torch.full((len(where),), torch.nan, dtype=torch.float32, device="cpu")
    filled[where] = values.float()
    return filled


def _partner_values(similarity: Tensor | None, partner: Tensor) -> Tensor:
    if similarity is None:
        return torch.full((len(partner),), torch.nan, dtype=torch.float32, device="cpu")
    paired = partner >= 0
    return _fill_in(similarity[paired, partner[paired]], paired)


def _cosines(one: _LayerWeights, other: _LayerWeights) -> Tensor:
    return cosines(one.layer.weights, other.layer.weights)


def _likeness_of_weights(now: _LayerWeights, first: _LayerWeights) -> Likeness | None:
    if now.shape[1:] != first.shape[1:]:
        return None
    chance = chance_cosine(first.shape, now.shape)
    return Likeness(mean_matched(_cosines(first, now)), chance)
