"""Find the tensors in the content of a pickle, and their names."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from kernelviz_callback.checkpoints.byte_ranges import check_tensor_count
from kernelviz_callback.checkpoints.safe_pickle import Placeholder
from kernelviz_callback.checkpoints.stored_layers import StoredTensor

_LONGEST_PATH = 500  # characters: no name of a layer is longer
_MODULE_DICTS = ("_parameters", "_buffers", "_modules")  # attributes of a pickled nn.Module


def find_tensors(
    content: Any, tensor_of: Callable[[Any], StoredTensor | None]
) -> dict[str, StoredTensor]:
    """List the tensors in the dicts and modules of a file.

    Args:
        content: What `read_pickle` returned.
        tensor_of: Returns the tensor that a node describes, None if the node is not a tensor.

    Returns:
        Path to tensor, in the order of the file. A path consists of the keys that lead to the
        tensor, joined by dots. Keys that cannot be printed are skipped.
    """
    found: dict[str, StoredTensor] = {}
    seen: set[int] = set()
    # Depth first, with one iterator for each open level instead of recursion, so that a deep file
    # cannot exhaust the stack. Each item has the path of the dict around a node, the name of the
    # node in that dict, and the node.
    open_levels: list[Iterator[tuple[str, str, Any]]] = [iter([("", "", content)])]
    while open_levels:
        within, name, node = next(open_levels[-1], (None, "", None))
        if within is None:
            open_levels.pop()
        elif len(within) + len(name) > _LONGEST_PATH:
            continue
        elif (stored := tensor_of(node)) is not None:
            found[join(within, name)] = replace(stored, within=within)
            check_tensor_count(len(found))
        elif id(node) not in seen:
            seen.add(id(node))
            open_levels.append(_children(within, name, node))
    return found


def as_mapping(node: Any) -> dict[Any, Any]:
    """Return the items of a dict or of an object of a dict subclass; empty for any other node."""
    if isinstance(node, Placeholder):
        return node.items or {}
    return node if isinstance(node, dict) else {}


def join(*names: str) -> str:
    """Join the parts of a path with dots, without the empty parts.

    Example:
        >>> join("state_dict", "", "conv")
        'state_dict.conv'
    """
    return ".".join(filter(None, names))


def _children(within: str, name: str, node: Any) -> Iterator[tuple[str, str, Any]]:
    path = join(within, name)
    for key, child in as_mapping(node).items():
        if isinstance(key, str) and key.isprintable():
            # Names of parameters start at the module, as in its state dict.
            yield (join(path, key), "", child) if _module_dicts(child) else (path, key, child)
    for part in _module_dicts(node):
        for key, child in as_mapping(part).items():
            if isinstance(key, str) and key.isprintable():
                yield within, join(name, key), child


def _module_dicts(node: Any) -> list[dict[Any, Any]]:
    """Return the dicts of parameters, buffers and submodules of a module; none for other nodes."""
    state = node.state if isinstance(node, Placeholder) else None
    if not isinstance(state, dict) or "_modules" not in state:
        return []
    return [as_mapping(state.get(part)) for part in _MODULE_DICTS]
