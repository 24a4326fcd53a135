"""Find the same layer in checkpoints that give it different names."""

from kernelviz_callback.checkpoints.checkpoint import Checkpoint
from kernelviz_callback.checkpoints.stored_layers import Shape


def find_same_layer(checkpoint: Checkpoint, wanted: str | None, name: str, shape: Shape) -> str:
    """Find the layer in a checkpoint that corresponds to a layer of a reference checkpoint.

    The prefixes of names differ: one file holds the network alone, another holds it inside a
    ``LightningModule``, a wrapper or an average. So the ends of the names are compared. A layer
    corresponds if its name differs by a prefix only. If there is no such layer, the layer of the
    same shape with the longest common end is taken. The number of dimensions must be the same.

    Args:
        checkpoint: The checkpoint to search.
        wanted: Name that the user gave, None for the first convolution. It is used if no layer
            corresponds.
        name: Name of the layer in the reference checkpoint.
        shape: Shape of its weights in the reference checkpoint.

    Returns:
        The name of the layer in ``checkpoint``.

    Raises:
        ValueError: If no layer is found; the message lists the layers.
    """
    if name in checkpoint.layers or name in checkpoint.refused:
        return checkpoint.resolve(name)
    scores = {
        candidate: _score(name, candidate, stored.shape == shape)
        for candidate, stored in checkpoint.layers.items()
        if len(stored.shape) == len(shape)
    }
    best = max(scores, key=lambda candidate: scores[candidate], default=None)
    return best if best is not None and any(scores[best]) else checkpoint.resolve(wanted)


def _score(one: str, other: str, same_shape: bool) -> tuple[bool, bool, int]:
    """Rate how well two names match. A match up to a prefix counts more than an equal shape.

    A short name is the end of many names. So if the shapes differ, one name may be at most one
    segment longer than the other.
    """
    end = _common_end(one, other)
    depths = one.count("."), other.count(".")
    only_prefix = end == min(depths) + 1 and (same_shape or abs(depths[0] - depths[1]) <= 1)
    return only_prefix, only_prefix and same_shape, end if same_shape else 0


def _common_end(one: str, other: str) -> int:
    """Count the segments that two names have in common, starting from the last segment."""
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    count = 0
    for a, b in pairs:
        if a != b:
            break
        count += 1
    return count
