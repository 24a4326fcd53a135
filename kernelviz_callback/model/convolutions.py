"""Find the convolutions of a model by name, and read their geometry."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import nn
from torch.nn.parameter import is_lazy

from kernelviz_callback.model.layer_kinds import (
    CONVOLUTIONS,
    Convolution,
    base_of,
    is_like_convolution,
    stored_weight,
    why_unwatchable,
)
from kernelviz_callback.model.layer_names import is_glob, match_names, nearest_name, printable

# Path segments that a wrapper adds to the name of a module: torch.compile,
# (Distributed)DataParallel, FSDP and activation checkpointing. They are removed, so that a layer
# has the same name with and without the wrapper.
WRAPPER_SEGMENTS = frozenset(
    {
        "_orig_mod",
        "module",
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_forward_module",  # added by Fabric
    }
)

_MOST_LISTED = 200  # layers in a message
_MOST_REASONS = 5  # reasons in the first line of a message


@dataclass(frozen=True)
class Geometry:
    """The settings of a convolution that, together with its weights, define its output.

    Attributes:
        kind: "Conv1d", "Conv2d" or "Conv3d".
        stride: (vertical, horizontal), in pixels. A 3-D layer has (slices, vertical, horizontal),
            a 1-D layer has one number, in samples.
        padding: In the order of ``stride``; or "same" or "valid" if the layer was built with a
            string.
        dilation: Spacing of the weights, in the order of ``stride``.
        groups: Number of groups.
    """

    kind: str
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int

    @property
    def plane_dilation(self) -> tuple[int, int]:
        """Dilation (vertical, horizontal) of each plane that `as_planes` returns."""
        *_, vertical, horizontal = 1, *self.dilation
        return vertical, horizontal

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Geometry":
        """Rebuild a geometry from the result of `to_dict`, read back from JSON."""
        restored: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        return cls(**restored)


class NamedLayer(NamedTuple):
    """A module that is a convolution, or that a user would take for one.

    Attributes:
        module: The module.
        path: Its name in ``named_modules()``.
        reason: Why it cannot be watched, see `why_unwatchable`; None if it can be watched.
    """

    module: nn.Module
    path: str
    reason: str | None


class Selection(NamedTuple):
    """The layers that a user has named.

    Attributes:
        found: Name to module, in the order of the model. At least one.
        refused: Name to reason, for the named layers that cannot be watched.
    """

    found: dict[str, nn.Module]
    refused: dict[str, str]


def find_convolutions(
    model: nn.Module, layers: str | Sequence[str] | None = None
) -> dict[str, Convolution]:
    """Find the convolutions to watch, and map their names to the modules.

    Args:
        model: Any module. Lazy convolutions are found too.
        layers: Which convolutions to find. None stands for the first convolution in
            ``named_modules()``: a layer that is trained comes before a layer whose parameters are
            all frozen, and then a 2-D layer before a 1-D or 3-D layer. Otherwise a dotted name, the
            end of a name after a dot, a glob, or a list of them. In a glob ``*`` also matches dots,
            as in ``"backbone.*.conv1"``; ``"*"`` alone matches every convolution. Modules that
            match a glob but cannot be watched are ignored. Names may contain the segments that
            wrappers add (``_orig_mod``, ``module``), or omit them. A layer that is registered under
            two names is returned under the first one.

    Returns:
        At least one convolution, in the order of the model. The names do not contain wrapper
        segments, so they are the same under ``torch.compile`` and ``DistributedDataParallel``.
        If an adapter such as LoRA computes the output of a convolution, the adapter is returned.

    Raises:
        ValueError: If nothing matches, if the end of a name matches several layers, or if a match
            is not a convolution with real weights. The message lists the convolutions of the model.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> find_convolutions(net)
        {'0': Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))}
        >>> list(find_convolutions(net, "*"))
        ['0', '2']
    """
    found: dict[str, Any] = select_convolutions(model, layers).found
    return found


def select_convolutions(model: nn.Module, layers: str | Sequence[str] | None = None) -> Selection:
    """Find the convolutions to watch, and those that are named but cannot be watched.

    Args:
        model: Any module.
        layers: See `find_convolutions`.

    Raises:
        ValueError: See `find_convolutions`.
    """
    named = name_layers(model)
    candidates = {name: layer.module for name, layer in named.items() if layer.reason is None}
    if layers is None:
        if not candidates:
            raise ValueError(_message(model, "no convolution to watch", named))
        first = min(candidates, key=lambda name: preference(candidates[name]))
        return Selection({first: candidates[first]}, {})
    wanted: set[str] = set()
    for pattern in [layers] if isinstance(layers, str) else layers:
        wanted.update(_match(model, named, pattern))
    return Selection(
        {name: module for name, module in candidates.items() if name in wanted},
        {n: layer.reason for n, layer in named.items() if layer.reason and n in wanted},
    )


def preference(layer: nn.Module) -> tuple[bool, bool]:
    """Return a key by which to sort layers: the one to watch by default has the smallest key.

    Layers that are trained come before frozen ones. Then 2-D layers come before 1-D and 3-D ones:
    image models may contain 1-D convolutions before the 2-D ones, in attention or time embeddings.
    """
    is_frozen = not any(p.requires_grad for p in layer.parameters())
    return is_frozen, not isinstance(base_of(layer), nn.Conv2d)


def name_layers(model: nn.Module) -> dict[str, NamedLayer]:
    """Name all modules that are convolutions, or that a user would take for convolutions.

    The names do not contain wrapper segments. If two layers have the same short name, the second
    one keeps the name with the segments. The convolutions inside an adapter are left out.
    """
    named: dict[str, NamedLayer] = {}
    inside: set[int] = set()
    for path, module in model.named_modules():
        if id(module) in inside or not is_like_convolution(module):
            continue
        reason = why_unwatchable(module)
        if base_of(module) not in (None, module):
            inside.update(map(id, module.modules()))
        short = ".".join(part for part in path.split(".") if part not in WRAPPER_SEGMENTS)
        name = printable(short or type(module).__name__)
        named[printable(path) if name in named else name] = NamedLayer(module, path, reason)
    return named


def check_layers(layers: object) -> None:
    """Check the type of the ``layers`` argument before a model exists.

    Raises:
        TypeError: If ``layers`` is neither None, nor a name, nor a list of names.
        ValueError: If ``layers`` is an empty list.
    """
    names = [layers] if isinstance(layers, str) else layers
    if names is None:
        return
    if not isinstance(names, Sequence) or not all(isinstance(n, str) and n for n in names):
        raise TypeError(f"layers must be None, a name, or a list of names; found {layers!r}")
    if not names:
        raise ValueError("layers is an empty list; pass None for the first convolution")


def geometry_of(layer: nn.Module) -> Geometry:
    """Read the geometry of a convolution, or of the convolution inside an adapter.

    Raises:
        TypeError: If the module is no convolution.

    Example:
        >>> geometry_of(nn.Conv2d(3, 8, 5, stride=2)).stride
        (2, 2)
    """
    conv = _base(layer)
    padding = conv.padding
    return Geometry(
        kind=next(kind.__name__ for kind in CONVOLUTIONS if isinstance(conv, kind)),
        stride=_for_each_direction(conv, conv.stride),
        padding=padding if isinstance(padding, str) else _for_each_direction(conv, padding),
        dilation=_for_each_direction(conv, conv.dilation),
        groups=conv.groups,
    )


def weight_shape(layer: nn.Module) -> tuple[int, ...]:
    """Return the shape (N, C, kH, kW) of the weights without computing them.

    A 1-D layer has (N, C, k), a 3-D layer (N, C, kD, kH, kW). The weights decide, because the
    attributes of the layer may differ from them. Only if the weights are not here as a whole, the
    attributes decide.

    Raises:
        TypeError: If the module is no convolution.

    Example:
        >>> weight_shape(nn.Conv2d(4, 8, 3, groups=2))
        (8, 2, 3, 3)
    """
    conv = _base(layer)
    weight = stored_weight(conv)
    if weight is not None and not is_lazy(weight):
        shape = getattr(weight, "ds_shape", weight.shape)  # DeepSpeed ZeRO-3 shards the weights
        if len(shape) == _directions(conv) + 2:
            return tuple(shape)
    sizes = _for_each_direction(conv, conv.kernel_size)
    return conv.out_channels, conv.in_channels // conv.groups, *sizes


def is_ready(layer: nn.Module) -> bool:
    """Return whether the weights exist. A lazy convolution has none before its first forward."""
    return not any(map(is_lazy, layer.parameters()))


def _directions(conv: Convolution) -> int:
    return next(n for n, kind in enumerate(CONVOLUTIONS, start=1) if isinstance(conv, kind))


def _for_each_direction(conv: Convolution, setting: Any) -> tuple[int, ...]:
    """Return a setting as one number for each direction. A subclass may have set one number."""
    return (setting,) * _directions(conv) if isinstance(setting, int) else tuple(setting)


def _base(layer: nn.Module) -> Convolution:
    conv = base_of(layer)
    if conv is None:
        raise TypeError(f"expected a Conv1d, Conv2d or Conv3d; found {type(layer).__name__}")
    return conv


def _match(model: nn.Module, named: Mapping[str, NamedLayer], pattern: str) -> list[str]:
    """Return the names that a pattern stands for, at least one of a layer that can be watched."""
    spellings = {name: name for name in named}
    for name, layer in named.items():
        spellings.setdefault(layer.path, name)
    names = list(dict.fromkeys(spellings[found] for found in match_names(spellings, pattern)))
    names = names or names_of_alias(model, named, pattern)
    found = [name for name in names if named[name].reason is None]
    if len(found) > 1 and not is_glob(pattern):
        found = [n for n in found if isinstance(base_of(named[n].module), nn.Conv2d)] or found
        if len(found) > 1:
            problem = f"layers={pattern!r} is the end of {len(found)} names: {', '.join(found)}"
            raise ValueError(_message(model, problem, named, ", but must stand for one layer"))
        return found
    if not found:
        problem = f"no convolution to watch matches layers={pattern!r}"
        reasons = [f"{name}: {named[name].reason}" for name in names[:_MOST_REASONS]]
        if not names and (module := dict(model.named_modules()).get(pattern)) is not None:
            reasons = [str(why_unwatchable(module))]
        if reasons:
            problem += f" ({'; '.join(reasons)})"
        raise ValueError(_message(model, problem, named, pattern=pattern))
    return names


def names_of_alias(model: nn.Module, named: Mapping[str, NamedLayer], pattern: str) -> list[str]:
    """Return the name of the layer that has a second name, or that contains the convolution."""
    other = dict(model.named_modules(remove_duplicate=False)).get(pattern)
    if other is None:
        return []
    return [n for n, layer in named.items() if other in (layer.module, base_of(layer.module))]


def _described(module: nn.Module) -> str:
    base = base_of(module)
    return str(module) if base in (None, module) else f"{type(module).__name__} of {base}"


def _message(
    model: nn.Module,
    problem: str,
    named: Mapping[str, NamedLayer],
    after: str = "",
    *,
    pattern: str | None = None,
) -> str:
    candidates = {name: layer.module for name, layer in named.items() if layer.reason is None}
    nearest = nearest_name(candidates, pattern) if pattern is not None else None
    advice = "the model has none"
    if nearest is not None:
        advice = f"the nearest name is {nearest!r}"
    elif candidates:
        first = min(candidates, key=lambda name: preference(candidates[name]))
        advice = f"pass the name of one, for example layers={first!r}"
    lines = [
        f"  {name}: {_described(layer.module)}"
        + (f" - cannot be watched, {layer.reason}" if layer.reason else "")
        for name, layer in named.items()
    ]
    more = len(lines) - _MOST_LISTED
    listed = lines[:_MOST_LISTED] + ([f"  ... and {more} more"] if more > 0 else [])
    found = f"{problem} in {type(model).__name__}{after}; {advice}"
    return "\n".join([f"{found}.\nConvolutions of this model:", *listed]) if listed else found
