"""The same layer in files that give it different names."""

from kernelviz_callback.opening.checkpoint import Checkpoint
from kernelviz_callback.opening.layers import Shape


def line_up(checkpoint: Checkpoint, wanted: str | None, name: str, shape: Shape) -> str:
    """Find the layer of a checkpoint that is a given layer of another.

    Prefixes differ: a network stands alone in one file, in a ``LightningModule``, a wrapper or an
    average in the next. So the ends of the names count, and then the shapes.

    Args:
        checkpoint: Where to look.
        wanted: What the user asked for, None for the first convolution. It must exist here too,
            unless the name that it stands for in the other does.
        name: Of the layer in the other.
        shape: Likewise.

    Returns:
        Its name here.

    Raises:
        ValueError: If there is none; the message lists the candidates.
    """
    if name in checkpoint.layers:
        return name
    ends = {here: _common_end(name, here) for here in checkpoint.layers}
    longest = max(ends.values(), default=0)
    if longest:
        fitting = [here for here, end in ends.items() if end == longest]
        same = [here for here in fitting if checkpoint.layers[here].shape == shape]
        return (same or fitting)[0]
    return checkpoint.resolve(wanted)


def _common_end(one: str, other: str) -> int:
    """How many segments two names have in common, from the last one on."""
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    count = 0
    for a, b in pairs:
        if a != b:
            break
        count += 1
    return count
