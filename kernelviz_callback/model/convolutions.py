"""Find the convolutions of a model by name, and read their geometry."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import nn
from torch.nn.parameter import is_lazy

from kernelviz_callback.drawable import why_not_drawable

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

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d

_KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MOST_CANDIDATES = 20


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


def find_convolutions(
    model: nn.Module, layers: str | Sequence[str] | None = None
) -> dict[str, Convolution]:
    """Find the convolutions to watch, and map their names to the modules.

    Args:
        model: Any module. Lazy convolutions are found too.
        layers: Which convolutions to find. None stands for the first 2-D convolution in
            ``named_modules()``, or, if there is none, for the first 1-D or 3-D convolution.
            Otherwise a dotted name, a glob, or a list of names and globs. In a glob ``*`` also
            matches dots, as in ``"backbone.*.conv1"``; ``"*"`` alone matches every convolution.
            Modules that match a glob but are not convolutions are ignored. Names may contain the
            segments that wrappers add (``_orig_mod``, ``module``), or omit them. A layer that is
            registered under two names is returned under the first one.

    Returns:
        At least one convolution, in the order of the model. The names do not contain wrapper
        segments, so they are the same under ``torch.compile`` and ``DistributedDataParallel``.

    Raises:
        ValueError: If nothing matches, or if a match is not a convolution with real weights. The
            message lists the convolutions of the model.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 3))
        >>> find_convolutions(net)
        {'0': Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))}
        >>> list(find_convolutions(net, "*"))
        ['0', '2']
    """
    modules = _stable_names(model)
    candidates = _candidates(modules)
    if layers is None:
        if not candidates:
            raise ValueError(_no_match_message(model, "no convolution to watch", modules))
        return dict([_default_layer(candidates)])

    wanted: set[str] = set()
    for pattern in [layers] if isinstance(layers, str) else layers:
        matches = {
            name
            for name, (raw, _) in modules.items()
            if pattern in (name, raw) or fnmatchcase(name, pattern) or fnmatchcase(raw, pattern)
        } or _first_names_of_alias(model, pattern, modules)
        found = matches & candidates.keys()
        if not found:
            problem = f"no convolution to watch matches layers={pattern!r}"
            if pattern in matches:
                problem += f" ({_why_unsupported(modules[pattern][1])})"
            raise ValueError(_no_match_message(model, problem, modules))
        wanted |= found
    return {name: conv for name, conv in candidates.items() if name in wanted}


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


def geometry_of(conv: Convolution) -> Geometry:
    """Read the geometry of a convolution.

    Example:
        >>> geometry_of(nn.Conv2d(3, 8, 5, stride=2)).stride
        (2, 2)
    """
    padding = conv.padding
    return Geometry(
        kind=next(kind.__name__ for kind in _KINDS if isinstance(conv, kind)),
        stride=tuple(conv.stride),
        padding=padding if isinstance(padding, str) else tuple(padding),
        dilation=tuple(conv.dilation),
        groups=conv.groups,
    )


def weight_shape(conv: Convolution) -> tuple[int, ...]:
    """Return the shape (N, C, kH, kW) of the weights without reading the weights.

    A 1-D layer has (N, C, k), a 3-D layer (N, C, kD, kH, kW).

    Example:
        >>> weight_shape(nn.Conv2d(4, 8, 3, groups=2))
        (8, 2, 3, 3)
    """
    return conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size


def is_ready(conv: Convolution) -> bool:
    """Return whether the weights exist. A lazy convolution has none before its first forward."""
    return not any(is_lazy(p) for p in conv.parameters(recurse=True))


def _stable_names(model: nn.Module) -> dict[str, tuple[str, nn.Module]]:
    """Map each module's name without wrapper segments to its raw name and the module.

    If two convolutions have the same short name, the second one keeps its raw name. If only one of
    two modules with the same short name is a convolution, the other module is left out.
    """
    named: dict[str, tuple[str, nn.Module]] = {}
    for raw, module in model.named_modules():
        short = ".".join(part for part in raw.split(".") if part not in WRAPPER_SEGMENTS)
        name = short or type(module).__name__
        if name in named and not _is_convolution(module):
            continue
        taken = name in named and _is_convolution(named[name][1])
        named[raw if taken else name] = (raw, module)
    return named


def _first_names_of_alias(
    model: nn.Module, name: str, modules: Mapping[str, tuple[str, nn.Module]]
) -> set[str]:
    """Return the first name of a module that has ``name`` as a second name, or an empty set."""
    other = dict(model.named_modules(remove_duplicate=False)).get(name)
    return {first for first, (_, module) in modules.items() if module is other}


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd)


def _candidates(modules: Mapping[str, tuple[str, nn.Module]]) -> dict[str, Convolution]:
    return {
        name: module
        for name, (_, module) in modules.items()
        if isinstance(module, _KINDS) and _why_unsupported(module) is None
    }


def _default_layer(candidates: Mapping[str, Convolution]) -> tuple[str, Convolution]:
    """Return the first 2-D convolution, or else the first one.

    Image models may contain 1-D convolutions before it, in attention or time embeddings.
    """
    named = list(candidates.items())
    return next((each for each in named if isinstance(each[1], nn.Conv2d)), named[0])


def _why_unsupported(module: nn.Module) -> str | None:
    """Return the reason why a module cannot be watched, or None if it can."""
    if type(module).__module__.startswith("torch.ao.nn.quantized"):
        return (
            f"{type(module).__name__} is quantized: its weights are whole numbers and are not "
            "trained any more"
        )
    if not _is_convolution(module):
        return f"it is a {type(module).__name__}"
    if hasattr(module, "weight_fake_quant") and hasattr(module, "bn"):
        return f"{type(module).__name__} is fused: its weights depend on the batch norm inside it"
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        name = type(module).__name__
        return f"{name} is transposed: it does not compute filter responses"
    if not isinstance(module, _KINDS):
        return f"{type(module).__name__} is not a Conv1d, Conv2d or Conv3d"
    if any(p.is_complex() for p in module.parameters()):
        return "its weights are complex"
    return why_not_drawable(weight_shape(module))


def _no_match_message(
    model: nn.Module, problem: str, modules: Mapping[str, tuple[str, nn.Module]]
) -> str:
    lines = list(_candidate_lines(modules))
    more = (
        [f"  ... and {len(lines) - _MOST_CANDIDATES} more"] if len(lines) > _MOST_CANDIDATES else []
    )
    listed = "\n".join(lines[:_MOST_CANDIDATES] + more)
    candidates = _candidates(modules)
    advice = "the model has none"
    if candidates:
        advice = f"pass the name of one, for example layers={_default_layer(candidates)[0]!r}"
    return (
        f"{problem} in {type(model).__name__}; {advice}.\n"
        f"Convolutions of this model:\n{listed or '  none'}"
    )


def _candidate_lines(modules: Mapping[str, tuple[str, nn.Module]]) -> Iterator[str]:
    for name, (_, module) in modules.items():
        if _is_convolution(module):
            reason = _why_unsupported(module)
            yield f"  {name}: {module}" + (f" - cannot be watched, {reason}" if reason else "")
