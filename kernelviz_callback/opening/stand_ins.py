"""What an unpickler makes in place of objects whose classes nobody loads: it holds and does nothing.

A class or function that a file names becomes one of three, by what the file fills into the objects
that come of it.
"""

from collections import OrderedDict
from typing import Any

from kernelviz_callback.opening.pickle_survey import Filling


class StandIn:
    """An object of a class that a file names.

    Attributes:
        state: What the file holds of it, often a dict of its attributes.
    """

    state: object = None

    def __new__(cls, *arguments: object, **more: object) -> "StandIn":
        """Make one, whatever the file gives its class."""
        return super().__new__(cls)

    def __init__(self, *arguments: object, **more: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Mapping:
    def __new__(cls, *arguments: object, **more: object) -> Any:
        return OrderedDict()


class _Sequence:
    def __new__(cls, *arguments: object, **more: object) -> Any:
        return []


_KINDS: dict[Filling, type] = {"object": StandIn, "mapping": _Mapping, "sequence": _Sequence}


def stand_in(name: str, filling: Filling = "object") -> type:
    """Make a class that stands in for another, or for a function.

    Example:
        >>> stand_in("evil.run")("rm -rf /").state is None
        True
        >>> stand_in("collections.defaultdict", "mapping")(list)
        OrderedDict()
    """
    return type(name, (_KINDS[filling],), {})
