"""Match what a user writes for a layer with the names of the layers."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

_GLOB_SIGNS = "*?["


def printable(name: str) -> str:
    r"""Return a name with escapes in the place of characters that cannot be printed.

    Layers have these names everywhere: in files and events, in messages and on the command line.

    Example:
        >>> printable("блок.conv"), printable("new\nline")
        ('блок.conv', 'new\\nline')
    """
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")


def is_glob(pattern: str) -> bool:
    """Whether a pattern may stand for several names."""
    return any(sign in pattern for sign in _GLOB_SIGNS)


def match_names(names: Collection[str], pattern: str) -> list[str]:
    """Find the names that a name, the end of a name, or a glob stands for.

    Args:
        names: Dotted names of layers.
        pattern: A name; the end of a name after a dot; or a glob, in which ``*`` also matches dots.
            A glob that matches no whole name is matched with the ends of names.

    Returns:
        The names, in their order. A name that is equal to the pattern is returned alone.

    Example:
        >>> match_names(["net.stem", "net.head"], "stem")
        ['net.stem']
        >>> match_names(["net.stem", "net.head"], "net.*")
        ['net.stem', 'net.head']
        >>> match_names(["net.stem", "net.head"], "st*")
        ['net.stem']
    """
    if pattern in names:
        return [pattern]
    end = f".{pattern}"
    found = [name for name in names if name.endswith(end) or fnmatchcase(name, pattern)]
    return found or [name for name in names if fnmatchcase(name, f"*{end}")]


def nearest_name(names: Iterable[str], pattern: str) -> str | None:
    """Find the name whose spelling, or whose end, is nearest to a pattern that matches no name.

    Example:
        >>> nearest_name(["net.stem", "net.head"], "steem")
        'net.stem'
    """
    segments = pattern.count(".") + 1
    spellings: dict[str, str] = {}
    for name in names:
        spellings.setdefault(name, name)
        spellings.setdefault(".".join(name.split(".")[-segments:]), name)
    found = get_close_matches(pattern, spellings, n=1)
    return spellings[found[0]] if found else None
