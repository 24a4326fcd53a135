"""The snapshots and checkpoints of a training by their steps, of which one layer is read."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import PurePosixPath

from kernelviz_callback.filming.reel import Reading
from kernelviz_callback.opening.checkpoint import PLAIN, STEP_IN_NAME, Checkpoint, open_checkpoint
from kernelviz_callback.opening.lining_up import line_up

Survive = Callable[[], AbstractContextManager[None]]


def by_steps(names: Iterable[str], survive: Survive) -> tuple[dict[int, str], list[str]]:
    """Line checkpoints up in the order of their steps.

    Args:
        names: To give to `open_checkpoint`. One that does not tell its step in its name is opened.
        survive: Notes the `ValueError` or `OSError` of one that cannot be, and goes on.

    Returns:
        Step to name, ascending; of the same step, the last one named. And what a user should know
        of it, a sentence each. Unless all tell their steps, they are numbered in their order.
    """
    told: list[tuple[int | None, str]] = []
    for name in names:
        with survive():
            told.append((_step_of(name), name))
    notes: list[str] = []
    untold = sum(step is None for step, _ in told)
    if untold and len(told) > 1:
        notes.append(f"{untold} of {len(told)} do not tell their step: all are numbered from 0")
    steps = {
        (place if untold or step is None else step): name for place, (step, name) in enumerate(told)
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
        self.geometry = first.layers[self.layer].geometry or PLAIN
        self._wanted = layer

    def read(self, step: int) -> Reading:
        """Read the layer at a step.

        Raises:
            ValueError: If the checkpoint has no such layer, of this shape, or is damaged.
            OSError: If it cannot be read.
        """
        checkpoint = open_checkpoint(self.names[step])
        here = line_up(checkpoint, self._wanted, self.layer, self.shape)
        shape = checkpoint.layers[here].shape
        if shape != self.shape:
            sizes = ["x".join(map(str, size)) for size in (self.shape, shape)]
            raise ValueError(f"{checkpoint.name}: expected {sizes[0]} of {here}; found {sizes[1]}")
        return Reading(checkpoint.epoch, {self.layer: checkpoint.read(here)})


def _step_of(name: str) -> int | None:
    step = STEP_IN_NAME.search(PurePosixPath(name).name)
    return int(step[1]) if step else open_checkpoint(name).step
