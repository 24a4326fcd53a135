"""Tensors in a pickle that are not stored as the plain numbers of a storage.

NumPy arrays are read. The others, such as sparse tensors, are named with the reason why they cannot
be shown.
"""

import re
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernelviz_callback.checkpoints.byte_ranges import why_no_floats
from kernelviz_callback.checkpoints.safe_pickle import (
    Placeholder,
    quoted,
    text,
    whole_numbers,
    whole_numbers_or_none,
)
from kernelviz_callback.checkpoints.stored_layers import StoredTensor

# The functions and classes that make such tensors.
_MAKERS = re.compile(
    r"(?P<array>numpy\._?core\.(multiarray\._reconstruct|numeric\._frombuffer))"
    r"|(?P<rebuilt>torch\.(\w+\.)*_rebuild_\w+)"
    r"|(?P<uninitialized>torch\.nn\.parameter\.Uninitialized\w+)"
)
_MOST_NAMES = 1_000  # of functions and classes, whose kinds are remembered
_MOST_ARGUMENTS = 4  # that are searched for a shape
_MOST_DIMENSIONS = 8  # of such a shape
_NUMBER = re.compile(r"[<>=|]?[a-zA-Z]\d{0,2}")  # a dtype of NumPy without fields


def describe_other(node: Placeholder, name: str, arguments: Any) -> StoredTensor | None:
    """Describe a tensor that is not made of the plain numbers of a storage.

    Args:
        node: The node of the pickle.
        name: The function that rebuilds the tensor, as ``module.name``.
        arguments: The arguments of the function.

    Returns:
        None if the node is not a tensor.

    Raises:
        ValueError: If the description of the tensor is damaged.
    """
    made = _made_by(name)
    if made is None:
        return None
    if made == "array":
        return _describe_array(node, arguments)
    if made == "uninitialized":
        return StoredTensor((), refusal="it has no weights before its first forward")
    if not isinstance(arguments, tuple) or not arguments:
        raise ValueError("damaged: the description of a tensor is not valid")
    kind = name.rpartition("._rebuild_")[2]
    if kind == "meta_tensor_no_storage":
        reason = "its weights are on the meta device, where they have no values"
    elif kind == "sparse_tensor":
        layout = getattr(arguments[0], "arguments", [arguments[0]])[0]
        kind = layout.removeprefix("torch.") if isinstance(layout, str) else "sparse"
        reason = f"its weights are {quoted(kind)[1:-1]}"
    else:
        reason = f"its weights are stored in a form that only {quoted(name)} can read"
    return StoredTensor(_find_shape(arguments), refusal=reason)


@lru_cache(_MOST_NAMES)
def _made_by(name: str) -> str | None:
    """Return the kind of tensor that a function or class makes, None if it makes none."""
    match = _MAKERS.fullmatch(name)
    return None if match is None else match.lastgroup


def _find_shape(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the first shape among the arguments, or in a tuple among them; empty if none is."""
    for argument in arguments[:_MOST_ARGUMENTS]:
        within = argument[:_MOST_ARGUMENTS] if isinstance(argument, tuple) else ()
        for candidate in (argument, *within):
            shape = whole_numbers_or_none(candidate, _MOST_DIMENSIONS)
            if shape:
                return shape
    return ()


def _describe_array(node: Placeholder, arguments: Any) -> StoredTensor:
    try:
        order = "C"
        if isinstance(node.state, tuple):
            _, shape, kind, is_fortran, content = node.state[:5]  # a subclass may have more
            order = "F" if is_fortran is True else "C"
        else:
            content, kind, shape, order = arguments
        shape = whole_numbers(shape)
        code = text(kind.state[1]) + text(kind.arguments[0])
        if text(order) not in ("C", "F") or not _NUMBER.fullmatch(code):
            return StoredTensor((), refusal=f"its weights are {quoted(code)}, not numbers")
        dtype = np.dtype(code)
    except (AttributeError, LookupError, TypeError, ValueError):
        return StoredTensor((), refusal="it is an array of a kind that cannot be read")
    if dtype.kind != "f":
        return StoredTensor(shape, refusal=why_no_floats(dtype.name))
    return StoredTensor(shape, lambda: _read_array(content, dtype, shape, order))


def _read_array(content: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> Tensor:
    raw = raw_bytes(content)
    if len(raw) != prod(shape) * dtype.itemsize:
        raise ValueError("damaged: the size of an array does not match its bytes")
    array = np.frombuffer(raw, dtype).reshape(shape, order=order)
    return torch.from_numpy(array.astype(np.float32, order="C"))


def raw_bytes(node: Any) -> bytes | bytearray:
    """Return the bytes that a node stands for: protocol 2 stores them as text.

    Raises:
        ValueError: If the node does not stand for bytes.
    """
    if isinstance(node, Placeholder) and node.name == "_codecs.encode" and node.arguments:
        characters, *coding = node.arguments
        if isinstance(characters, str) and coding == ["latin1"]:
            return characters.encode("latin1")
    if isinstance(node, bytes | bytearray):
        return node
    raise ValueError("damaged: an array has no bytes")
