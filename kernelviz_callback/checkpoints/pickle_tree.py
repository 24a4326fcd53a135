"""From what a pickle holds to the tensors in it, and the names that lead there."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from kernelviz_callback.checkpoints.safe_pickle import StandIn
from kernelviz_callback.checkpoints.stored_layers import StoredTensor

# Longer ones, and those that cannot be printed, name no layer.
_LONGEST_PATH = 500
_OF_A_MODULE = ("_parameters", "_buffers", "_modules")


def find_nodes(
    content: Any, tensor_of: Callable[[Any], StoredTensor | None]
) -> dict[str, StoredTensor]:
    """List the tensors below the dicts and modules of a file.

    Args:
        content: As `read_pickle` gives it.
        tensor_of: Tells the tensor that a part of it is, None if it is something else.

    Returns:
        The keys that lead to each, with dots, to the tensor, in the order of the file.
    """
    found: dict[str, StoredTensor] = {}
    seen: set[int] = set()
    # Depth first, one iterator for each open level: however deep, and no name is made before its
    # turn. The dicts that lead to a node, and its name within the last of them.
    waiting: list[Iterator[tuple[str, str, Any]]] = [iter([("", "", content)])]
    while waiting:
        within, name, node = next(waiting[-1], (None, "", None))
        if within is None:
            waiting.pop()
        elif len(within) + len(name) > _LONGEST_PATH:
            continue
        elif (stored := tensor_of(node)) is not None:
            found[join(within, name)] = replace(stored, within=within)
        elif id(node) not in seen:
            seen.add(id(node))
            waiting.append(_below(within, name, node))
    return found


def mapping_of(node: Any) -> dict[Any, Any]:
    """What a dict, or an object of a class that is one, holds; empty for all else."""
    if isinstance(node, StandIn):
        return node.items or {}
    return node if isinstance(node, dict) else {}


def join(*names: str) -> str:
    """Join the parts of a name.

    Example:
        >>> join("state_dict", "", "conv")
        'state_dict.conv'
    """
    return ".".join(filter(None, names))


def _below(within: str, name: str, node: Any) -> Iterator[tuple[str, str, Any]]:
    path = join(within, name)
    for key, child in mapping_of(node).items():
        if isinstance(key, str) and key.isprintable():
            # The names of the parts of a module begin at the module.
            yield (join(path, key), "", child) if _parts(child) else (path, key, child)
    for part in _parts(node):
        for key, child in mapping_of(part).items():
            if isinstance(key, str) and key.isprintable():
                yield within, join(name, key), child


def _parts(node: Any) -> list[dict[Any, Any]]:
    """The dicts in which a module keeps its parameters, buffers and modules, if it is one."""
    state = node.state if isinstance(node, StandIn) else None
    if not isinstance(state, dict) or "_modules" not in state:
        return []
    return [mapping_of(state.get(part)) for part in _OF_A_MODULE]
