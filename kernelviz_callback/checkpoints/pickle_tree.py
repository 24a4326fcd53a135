"""Find the tensors in the content of a pickle, and their names."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from kernelviz_callback.checkpoints.byte_ranges import check_tensor_count
from kernelviz_callback.checkpoints.safe_pickle import Placeholder
from kernelviz_callback.checkpoints.stored_layers import StoredTensor
from kernelviz_callback.checkpoints.stored_modules import (
    StoredModule,
    describe_module,
    is_module,
    is_quantized,
)

_LONGEST_PATH = 500  # characters: no name of a layer is longer
_MOST_LEVELS = 10_000  # of dicts and other objects in each other
_BRANCHES = (dict, list, tuple, Placeholder)
_MOST_CHARACTERS = 20_000_000  # of all paths together: enough for 200,000 tensors


class _Node(NamedTuple):
    """A node of the tree, and its place.

    Attributes:
        value: The object at the node.
        within: Path of the dict, list, object or outermost module around the node.
        name: Name of the node there.
        holder: The module that has the node as a parameter, None for any other node.
        is_in_module: Whether the name starts at a module, as in the state dict of the module.
    """

    value: Any
    within: str = ""
    name: str = ""
    holder: StoredModule | None = None
    is_in_module: bool = False


def find_tensors(
    content: Any, tensor_of: Callable[[Any], StoredTensor | None]
) -> dict[str, StoredTensor]:
    """List the tensors in the dicts, lists, tuples, objects and modules of a file.

    The state of an optimizer, which is a dict with the keys ``state`` and ``param_groups``, is
    passed over. Of a module, only what its state dict would have is listed.

    Args:
        content: What `read_pickle` returned.
        tensor_of: Returns the tensor that a node describes, None if the node is not a tensor.

    Returns:
        Path to tensor, in the order of the file. A path consists of the keys, indices and names of
        attributes that lead to the tensor, joined by dots.

    Raises:
        ValueError: If the paths are too long, or the description of a tensor is damaged.
    """
    found: dict[str, StoredTensor] = {}
    described: dict[int, StoredTensor] = {}
    seen: set[int] = set()
    characters = 0
    # Depth first, with one iterator for each open level instead of recursion, so that a deep file
    # cannot exhaust the stack.
    open_levels: list[Iterator[_Node]] = [iter([_Node(content)])]
    while open_levels:
        node = next(open_levels[-1], None)
        if node is None:
            open_levels.pop()
            continue
        value, size = node.value, len(node.within) + len(node.name)
        if size > _LONGEST_PATH or not isinstance(value, _BRANCHES):
            continue
        if id(value) not in seen:
            seen.add(id(value))
            stored = tensor_of(value)
            if stored is None:
                if len(open_levels) == _MOST_LEVELS:
                    raise ValueError(f"its content has more than {_MOST_LEVELS:,} levels")
                open_levels.append(_children(node, seen))
                continue
            described[id(value)] = stored
        if id(value) in described:
            characters += size
            if characters > _MOST_CHARACTERS:
                raise ValueError(
                    f"the names of its tensors have more than {_MOST_CHARACTERS:,} characters"
                )
            found[join(node.within, node.name)] = replace(
                described[id(value)], within=node.within, module=node.holder
            )
            check_tensor_count(len(found))
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


def _children(node: _Node, seen: set[int]) -> Iterator[_Node]:
    value, within, name = node.value, node.within, node.name
    if isinstance(value, list | tuple):
        yield from _members(node, enumerate(value))
    elif isinstance(value, dict):
        if not {"state", "param_groups"} <= value.keys():
            yield from _members(node, value.items())
    elif is_module(value):
        if not node.is_in_module:  # names of parameters start at the outermost module
            within, name = join(within, name), ""
        parts = _Node(None, within, name, describe_module(value), is_in_module=True)
        if is_quantized(value):
            state = _unseen(value.state, seen)
            tensors = [part for part in state if isinstance(part, Placeholder)]
            yield from _members(parts, zip(("weight", "bias"), tensors, strict=False))
        else:
            for part in ("_parameters", "_buffers"):
                yield parts._replace(value=_plain(value.state.get(part)))
            yield parts._replace(value=_plain(value.state["_modules"]), holder=None)
    else:  # an object; wrappers, such as a compiled module, have the model among their arguments
        is_slots = isinstance(value.state, tuple)
        states = _unseen(value.state, seen) if is_slots else (value.state,)
        for part in (*_unseen(value.arguments, seen), value.items, *states):
            if isinstance(part, _BRANCHES):
                yield node._replace(value=part)


def _unseen(parts: tuple[Any, ...], seen: set[int]) -> tuple[Any, ...]:
    """Return the parts of an object, none if another object has had the same tuple of parts."""
    if id(parts) in seen:
        return ()
    seen.add(id(parts))
    return parts


def _members(node: _Node, items: Iterable[tuple[Any, Any]]) -> Iterator[_Node]:
    """Name the members of a dict or sequence; those whose keys are objects, by their positions."""
    for position, (key, child) in enumerate(items):
        if not isinstance(child, _BRANCHES):
            continue
        name = str(key) if isinstance(key, str | int) else str(position)
        if node.is_in_module:
            yield node._replace(value=child, name=join(node.name, name))
        else:
            yield _Node(child, join(node.within, node.name), name)


def _plain(node: Any) -> Any:
    """Return the items of an object of a dict subclass; any other node as it is."""
    return node.items if isinstance(node, Placeholder) else node
