"""The same layer in files that give it different names."""

from kernelviz_callback.checkpoints.checkpoint import Checkpoint
from kernelviz_callback.checkpoints.stored_layers import Shape


def line_up(checkpoint: Checkpoint, wanted: str | None, name: str, shape: Shape) -> str:
    """Find the layer of a checkpoint that is a given layer of another.

    Prefixes differ: a network stands alone in one file, in a ``LightningModule``, a wrapper or an
    average in the next. So the ends of the names count, and the shapes: a name that is the end of
    the other, or the longest common end of layers of one shape. A 2-D layer is never a 1-D one.

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
    fits = {
        here: _fit(name, here, stored.shape == shape)
        for here, stored in checkpoint.layers.items()
        if len(stored.shape) == len(shape)
    }
    best = max(fits, key=lambda here: fits[here], default=None)
    return best if best is not None and any(fits[best]) else checkpoint.resolve(wanted)


def _fit(one: str, other: str, same_shape: bool) -> tuple[bool, bool, int]:
    """How well a name fits another: whether only a prefix differs counts more than shapes.

    A short name is the end of many: of another shape, it must be one segment longer at most.
    """
    end = _common_end(one, other)
    depths = one.count("."), other.count(".")
    only_prefix = end == min(depths) + 1 and (same_shape or abs(depths[0] - depths[1]) <= 1)
    return only_prefix, only_prefix and same_shape, end if same_shape else 0


def _common_end(one: str, other: str) -> int:
    """How many segments two names have in common, from the last one on."""
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    count = 0
    for a, b in pairs:
        if a != b:
            break
        count += 1
    return count
