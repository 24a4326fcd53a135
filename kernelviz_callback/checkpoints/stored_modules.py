"""Tell from its attributes whether a pickled ``nn.Module`` is a convolution, without its class."""

from dataclasses import dataclass
from typing import Any

from kernelviz_callback.checkpoints.safe_pickle import Placeholder
from kernelviz_callback.model.convolutions import Geometry

_QUANTIZED = (
    "torch.ao.nn.quantized.",
    "torch.ao.nn.intrinsic.quantized.",
    "torch.nn.quantized.",
    "torch.nn.intrinsic.quantized.",
)
_CONVOLUTIONS = "torch.nn.modules.conv."
_LARGEST_NUMBER = 1 << 16  # largest stride, padding, dilation and number of groups
_LONGEST_NAME = 60  # characters of the name of a class in a message


@dataclass(frozen=True)
class StoredModule:
    """The module that holds a parameter.

    Attributes:
        is_convolution: Whether it is a convolution of torch, or of a class derived from one.
        refusal: Why the callback cannot watch it; None if the callback can.
        geometry: Geometry of the convolution, None if the file does not have a valid one.
        unknown: Why it may multiply its input with other weights than the stored ones.
    """

    is_convolution: bool
    refusal: str | None = None
    geometry: Geometry | None = None
    unknown: str | None = None


def is_module(node: Any) -> bool:
    """Return whether a node of a pickle is a module: it has a dict of submodules."""
    return isinstance(node, Placeholder) and (
        (isinstance(node.state, dict) and "_modules" in node.state) or is_quantized(node)
    )


def is_quantized(node: Placeholder) -> bool:
    """Return whether a module is a quantized layer of torch, whose state is a tuple."""
    return _class_path(node).startswith(_QUANTIZED) and isinstance(node.state, tuple)


def describe_module(node: Placeholder) -> StoredModule:
    """Tell whether a module is a convolution that the callback can watch.

    Args:
        node: A node for which `is_module` is true.
    """
    name = _class_path(node).rpartition(".")[2][:_LONGEST_NAME]
    if is_quantized(node):
        reason = f"{name} is quantized: its weights are whole numbers and are not trained any more"
        return StoredModule("Conv" in name, reason)
    attributes, children = node.state, node.state["_modules"]
    children = children.items if isinstance(children, Placeholder) else children
    if not {"stride", "dilation", "groups", "transposed"} <= attributes.keys():
        return StoredModule(False, f"it is a {name}, not a Conv1d, Conv2d or Conv3d")
    if isinstance(children, dict) and {"weight_fake_quant", "bn"} <= children.keys():
        reason = f"{name} is fused: its weights depend on the batch norm inside it"
        return StoredModule(True, reason)
    if attributes["transposed"] is True:
        reason = f"{name} is transposed: it does not compute filter responses"
        return StoredModule(True, reason)
    is_own = not _class_path(node).startswith(_CONVOLUTIONS)
    unknown = f"it is a {name}, whose code is not in the file" if is_own else None
    return StoredModule(True, geometry=_read_geometry(attributes), unknown=unknown)


def _class_path(node: Placeholder) -> str:
    """Return the path of the class, which the oldest protocols pass as an argument."""
    if node.name.startswith("copyreg.") and node.arguments:
        path = node.arguments[0]
        return path if isinstance(path, str) else ""
    return node.name


def _read_geometry(attributes: dict[str, Any]) -> Geometry | None:
    stride, dilation, groups = (attributes[name] for name in ("stride", "dilation", "groups"))
    padding: Any = attributes.get("padding")
    paddings: Any = stride if isinstance(padding, str) and padding in ("same", "valid") else padding
    numbers = (stride, dilation, (groups,), paddings)
    if not all(map(_are_numbers, numbers, (1, 1, 1, 0))):
        return None
    if len(stride) != len(dilation) or len(stride) != len(paddings):
        return None
    return Geometry(f"Conv{len(stride)}d", stride, padding, dilation, groups)


def _are_numbers(node: Any, least: int) -> bool:
    return (
        isinstance(node, tuple)
        and 1 <= len(node) <= 3
        and all(type(n) is int and least <= n <= _LARGEST_NUMBER for n in node)
    )
