"""Words for the filters of a layer, in captions, tables and messages."""

from collections.abc import Sequence


def count_filters(count: int) -> str:
    """Write a number of filters with its noun.

    Example:
        >>> count_filters(1), count_filters(8)
        ('1 filter', '8 filters')
    """
    return count_of(count, "filter")


def count_of(count: int, noun: str) -> str:
    """Write a number with a noun, whose plural ends in s.

    Example:
        >>> count_of(1, "channel"), count_of(3, "channel")
        ('1 channel', '3 channels')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def describe_filters(shape: Sequence[int]) -> str:
    """Write the number of filters and the shape of each.

    Args:
        shape: Shape of the weights, (N, C, ...).

    Example:
        >>> describe_filters((64, 3, 7, 7))
        '64 filters 3x7x7'
    """
    count, *size = shape
    return f"{count_filters(count)} {'x'.join(map(str, size))}"
