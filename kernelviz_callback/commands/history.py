"""The snapshots and checkpoints of a training by their steps, of which one layer is read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from kernelviz_callback.checkpoints.checkpoint import Checkpoint, open_checkpoint, plain_geometry
from kernelviz_callback.checkpoints.match_names import find_same_layer
from kernelviz_callback.checkpoints.stored_layers import Shape
from kernelviz_callback.drawing.animation.sampling import Reading
from kernelviz_callback.snapshots.format import LayerRecord
from kernelviz_callback.snapshots.names import snapshot_step

Survive = Callable[[], AbstractContextManager[None]]


def by_steps(
    names: Iterable[str], survive: Survive, layer: str | None = None
) -> tuple[dict[int, str], list[str]]:
    """Line checkpoints up in the order of their steps.

    What a file tells of its step counts; its name only if it tells none. The names of our own
    snapshots are trusted: of them only the first is opened.

    Args:
        names: To give to `open_checkpoint`.
        survive: Notes the `ValueError` or `OSError` of one that cannot be shown, and goes on.
        layer: See `Checkpoint.resolve`. What was opened and has no such layer, of the shape that
            it has in the first, is left out.

    Returns:
        Step to name, ascending; of the same step, the last one named. And what a user should know
        of it, a sentence each. Unless all tell their steps, they are numbered in their order.

    Raises:
        ValueError: If those that can be opened have no such layer.
    """
    told: list[_Told] = []
    for name in names:
        with survive():
            told.append(_told_by(name))
    told = _fitting(told, survive, layer)
    notes: list[str] = []
    untold = sum(one.step is None for one in told)
    if untold and len(told) == 1:
        notes.append("it tells no step: 0 stands for it")
    elif untold:
        verb = "does not tell its" if untold == 1 else "do not tell their"
        notes.append(f"{untold} of {len(told)} {verb} step: all are numbered from 0")
    steps = {
        (place if untold or one.step is None else one.step): one.name
        for place, one in enumerate(told)
    }
    if len(steps) < len(told):
        notes.append(f"{len(told) - len(steps)} left out: of the same step, the last named counts")
    return dict(sorted(steps.items())), notes


class LayerHistory:
    """Reads one layer out of checkpoints.

    Attributes:
        names: Step to what `open_checkpoint` takes, ascending.
        layer: Name.
        shape: Of its weights.
        geometry: How it slides, where that is known.

    Args:
        names: As above.
        first: A checkpoint that names the layer; the others' names are lined up with it.
        layer: See `Checkpoint.resolve`.

    Raises:
        ValueError: If ``first`` has no such layer.
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
            ValueError: If the checkpoint has no such layer, of this shape, or is damaged.
            OSError: If it cannot be read.
        """
        return self._read(*self._open(step))

    def read_with_record(self, step: int) -> tuple[Reading, LayerRecord | None]:
        """Read the layer at a step, and what a snapshot records about it besides its weights.

        Returns:
            The reading, and None if the checkpoint is not a snapshot or its record is damaged.

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
        return checkpoint, _lined_up(checkpoint, self._wanted, self.layer, self.shape)

    def _read(self, checkpoint: Checkpoint, name: str) -> Reading:
        return Reading(checkpoint.epoch, {self.layer: checkpoint.read(name)}, name)


class _Told(NamedTuple):
    """A checkpoint and its step, and what was opened to learn it."""

    step: int | None
    name: str
    opened: Checkpoint | None


def _told_by(name: str) -> _Told:
    step = snapshot_step(name)
    if step is not None:
        return _Told(step, name, None)
    checkpoint = open_checkpoint(name)
    return _Told(checkpoint.step, name, checkpoint)


def _lined_up(checkpoint: Checkpoint, wanted: str | None, name: str, shape: Shape) -> str:
    """Find a layer in another checkpoint, of the same shape."""
    here = find_same_layer(checkpoint, wanted, name, shape)
    found = checkpoint.layers[here].shape
    if found != shape:
        sizes = ["x".join(map(str, size)) for size in (shape, found)]
        raise ValueError(f"{checkpoint.name}: expected {sizes[0]} of {here}; found {sizes[1]}")
    return here


def _fitting(told: Sequence[_Told], survive: Survive, layer: str | None) -> list[_Told]:
    """Those that have the layer, of the shape that it has in the first one."""
    in_order = list(told)
    if all(one.step is not None for one in told):
        in_order.sort(key=lambda one: one.step or 0)
    kept: set[_Told] = set()
    misfits: list[ValueError] = []
    first: tuple[str, Shape] | None = None
    for one in in_order:
        opened = one.opened
        if opened is None and first is None:
            with survive():
                opened = open_checkpoint(one.name)
            if opened is None:
                continue
        try:
            if opened is not None and first is not None:
                _lined_up(opened, layer, *first)
            elif opened is not None:
                name = opened.resolve(layer)
                first = name, opened.layers[name].shape
            kept.add(one)
        except ValueError as error:
            if one.opened is None:
                raise  # so are all that the run recorded
            misfits.append(error)
    if misfits and first is None:
        raise misfits[0]
    for misfit in misfits:
        with survive():
            raise misfit
    return [one for one in told if one in kept]
