"""The checkpoints of one training in the order of their steps, and one layer in each of them."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeAlias

from kernelviz_callback.checkpoints.checkpoint import Checkpoint, open_checkpoint, plain_geometry
from kernelviz_callback.checkpoints.match_names import find_same_layer
from kernelviz_callback.checkpoints.stored_layers import Shape
from kernelviz_callback.drawing.animation.sampling import Reading
from kernelviz_callback.snapshots.format import LayerRecord
from kernelviz_callback.snapshots.names import snapshot_step

# Makes a context that reports a `ValueError` or `OSError` and continues, see `FileErrors.catch`.
CatchErrors: TypeAlias = Callable[[], AbstractContextManager[None]]


def order_by_step(
    names: Iterable[str], catch: CatchErrors, layer: str | None = None
) -> tuple[dict[int, str], list[str]]:
    """Sort checkpoints by their steps.

    The step is read from the file. If the file does not state it, the name of the file is used. For
    our own snapshots the name is enough, so only the newest and the first of them are opened.

    Args:
        names: Names for `open_checkpoint`.
        catch: Reports the error of a checkpoint that cannot be used.
        layer: See `Checkpoint.resolve`. A checkpoint is left out if it does not have the layer, or
            has it in another shape than the newest checkpoint. If the steps are not known, the
            first checkpoint takes the place of the newest one.

    Returns:
        Step to name, ascending, and notes for the user, one sentence each. If several names have
        the same step, the last one is kept. If a checkpoint does not state its step, all
        checkpoints are numbered from 0 in the given order.

    Raises:
        ValueError: If no checkpoint has the layer.
    """
    entries: list[_Entry] = []
    for name in names:
        with catch():
            entries.append(_read_step(name))
    entries, notes = _select_with_layer(entries, catch, layer)
    unknown = sum(entry.step is None for entry in entries)
    if unknown and len(entries) == 1:
        notes.append("the checkpoint does not state its step: it is shown as step 0")
    elif unknown:
        verb = "does not state its" if unknown == 1 else "do not state their"
        notes.append(f"{unknown} of {len(entries)} {verb} step: all are numbered from 0")
    steps = {
        (index if unknown or entry.step is None else entry.step): entry.name
        for index, entry in enumerate(entries)
    }
    if len(steps) < len(entries):
        notes.append(
            f"{len(entries) - len(steps)} left out: several have the same step, and the last named "
            "is used"
        )
    return dict(sorted(steps.items())), notes


class LayerHistory:
    """Reads one layer from the checkpoints of a training.

    Attributes:
        names: Step to name for `open_checkpoint`, ascending.
        layer: Name of the layer in the first checkpoint.
        shape: Shape of its weights.
        geometry: Geometry of the layer; `plain_geometry` if the first checkpoint does not state it.

    Args:
        names: See above.
        first: An open checkpoint in which the layer is looked up. In the other checkpoints, the
            layer with the corresponding name is read.
        layer: See `Checkpoint.resolve`.

    Raises:
        ValueError: If ``first`` does not have the layer.
    """

    def __init__(self, names: Mapping[int, str], first: Checkpoint, layer: str | None) -> None:
        self.names = names
        self.layer = first.resolve(layer)
        self.shape = first.layers[self.layer].shape
        self.geometry = first.layers[self.layer].geometry or plain_geometry(self.shape)
        self._wanted = layer

    def read(self, step: int) -> Reading:
        """Read the layer at a step.

        Raises:
            OtherShapeError: If the layer has another shape in the checkpoint.
            ValueError: If the checkpoint is damaged, or does not have the layer.
            OSError: If the checkpoint cannot be read.
        """
        return self._read(*self._open(step))

    def read_with_record(self, step: int) -> tuple[Reading, LayerRecord | None]:
        """Read the layer at a step, and what a snapshot records about it besides its weights.

        Returns:
            The reading and the record. The record is None if the checkpoint is not a snapshot, or
            its record is damaged.

        Raises:
            ValueError: See `read`.
            OSError: See `read`.
        """
        checkpoint, name = self._open(step)
        reading = self._read(checkpoint, name)
        try:
            return reading, checkpoint.read_record(name)
        except ValueError:
            return reading, None

    def _open(self, step: int) -> tuple[Checkpoint, str]:
        checkpoint = open_checkpoint(self.names[step])
        return checkpoint, _find_layer(checkpoint, self._wanted, self.layer, self.shape)

    def _read(self, checkpoint: Checkpoint, name: str) -> Reading:
        reason = checkpoint.layers[name].unknown
        unknown = {} if reason is None else {self.layer: reason}
        return Reading(checkpoint.epoch, {self.layer: checkpoint.read(name)}, name, unknown)


class OtherShapeError(ValueError):
    """A checkpoint has the layer in another shape, because the training has changed it."""


class _Entry(NamedTuple):
    """A checkpoint, its step, and the open checkpoint if it was opened to read the step."""

    step: int | None
    name: str
    opened: Checkpoint | None


def _read_step(name: str) -> _Entry:
    step = snapshot_step(name)
    if step is not None:
        return _Entry(step, name, None)
    checkpoint = open_checkpoint(name)
    return _Entry(checkpoint.step, name, checkpoint)


def _find_layer(checkpoint: Checkpoint, wanted: str | None, name: str, shape: Shape) -> str:
    """Find the corresponding layer in another checkpoint, and check its shape."""
    here = find_same_layer(checkpoint, wanted, name, shape)
    found = checkpoint.layers[here].shape
    if found != shape:
        sizes = [_size(each) for each in (shape, found)]
        raise OtherShapeError(f"{checkpoint.name}: expected {sizes[0]} of {here}; found {sizes[1]}")
    return here


def _select_with_layer(
    entries: Sequence[_Entry], catch: CatchErrors, layer: str | None
) -> tuple[list[_Entry], list[str]]:
    """Return the checkpoints that have the layer in the same shape, and notes for the user.

    If all steps are known, the shape is the newest one: the training has changed the layer, and the
    films that it logs show the newest shape too. Otherwise it is that of the first checkpoint.
    """
    is_ordered = all(entry.step is not None for entry in entries)
    in_order = sorted(entries, key=lambda entry: -(entry.step or 0)) if is_ordered else entries
    found = _find_reference(in_order, catch, layer)
    if found is None:
        return list(entries), []
    name, shape = found
    kept = {entry for entry in entries if entry.opened is None}
    kept -= _with_other_shape([entry for entry in in_order if entry in kept], layer, name, shape)
    misfits: list[ValueError] = []
    for entry in entries:
        try:
            if entry.opened is not None:
                _find_layer(entry.opened, layer, name, shape)
                kept.add(entry)
        except OtherShapeError as error:
            if not is_ordered:
                misfits.append(error)
        except ValueError as error:
            misfits.append(error)
    for misfit in misfits:
        with catch():
            raise misfit
    left_out = len(entries) - len(kept) - len(misfits)
    notes = []
    if left_out:
        notes.append(
            f"{name} changed: {left_out} of {len(entries)} left out, in which it does not have its "
            f"newest shape, {_size(shape)}"
        )
    return [entry for entry in entries if entry in kept], notes


def _find_reference(
    in_order: Sequence[_Entry], catch: CatchErrors, layer: str | None
) -> tuple[str, Shape] | None:
    """Find the layer in the first checkpoint that has it, and return its name and its shape.

    Of the snapshots, which all have the same layers as a rule, only the two at the ends are asked.

    Returns:
        None if no checkpoint can be opened. The errors are reported.

    Raises:
        ValueError: If no checkpoint has the layer.
    """
    missing: list[ValueError] = []
    unread = [entry for entry in in_order if entry.opened is None]
    for entry in in_order:
        opened = entry.opened
        if opened is None and missing and entry is not unread[-1]:
            continue
        if opened is None:
            with catch():
                opened = open_checkpoint(entry.name)
        if opened is not None:
            try:
                name = opened.resolve(layer)
                return name, opened.layers[name].shape
            except ValueError as error:
                missing.append(error)
    if missing:
        raise missing[0]
    return None


def _with_other_shape(
    newest_first: Sequence[_Entry], layer: str | None, name: str, shape: Shape
) -> set[_Entry]:
    """Find the snapshots before the last change of the shape, without opening all of them."""

    def differs(entry: _Entry) -> bool:
        try:
            opened = open_checkpoint(entry.name)
        except (ValueError, OSError):
            return False  # it is reported when it is read
        try:
            return opened.layers[find_same_layer(opened, layer, name, shape)].shape != shape
        except ValueError:
            return True

    if not newest_first or not differs(newest_first[-1]):
        return set()
    return set(newest_first[bisect_left(newest_first, True, key=differs) :])


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape))
