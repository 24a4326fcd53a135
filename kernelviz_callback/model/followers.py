"""Find what follows a layer: the norm that reads its output, and the nonlinearity behind that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

# Functions of torch by their names, without the underscore of those that work in place.
# fmt: off
_SAME_VALUES = frozenset({
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "movedim", "moveaxis",
    "swapaxes", "contiguous", "to", "float", "double", "half", "bfloat16", "type", "type_as",
    "clone", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "squeeze",
    "unsqueeze", "as_subclass", "detach", "get",
})
_NONLINEAR = frozenset({
    "relu", "relu6", "threshold", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu",
    "silu", "mish", "softplus", "sigmoid", "logsigmoid", "hardsigmoid", "hardswish", "hardtanh",
    "tanh", "softsign", "tanhshrink", "hardshrink", "softshrink", "clamp", "clamp_min", "abs",
    "square", "softmax", "glu",
})
# fmt: on
# They change the values of channels in a way that no norm describes.
_SCALING = frozenset({"mul", "div", "true_divide", "sub"})
# Nothing leaves these where their input is negative.
_RECTIFIERS = frozenset({"relu", "relu6"})

# The arguments of the norms in `torch.nn.functional`, in their order.
_ARGUMENTS = {
    "batch_norm": (
        *("input", "running_mean", "running_var", "weight", "bias"),
        *("training", "momentum", "eps"),
    ),
    "instance_norm": (
        *("input", "running_mean", "running_var", "weight", "bias"),
        *("use_input_stats", "momentum", "eps"),
    ),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
}
_ROLES = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}


@dataclass(frozen=True)
class Follower:
    """What the output of a layer goes through before the next layer reads it.

    Attributes:
        norm: Kind of the norm: "batch", "running" (a batch norm in evaluation mode), "instance",
            "group" or "layer"; None if there is none.
        tensors: "gamma", "beta", "mean" and "variance" of the norm to the names of parameters and
            buffers of the model, as far as the norm has them.
        eps: The norm's small number, in squared units of the layer's output.
        groups: Number of groups of a group norm.
        nonlinearity: Name of the function behind the layer and its norm, such as "relu"; None if
            the next layer reads the values as they are.
        unknown: Why it is not known what follows, in words; None if it is known.
    """

    norm: str | None = None
    tensors: Mapping[str, str] = field(default_factory=dict)
    eps: float = 0.0
    groups: int = 1
    nonlinearity: str | None = None
    unknown: str | None = None

    @property
    def rectifies(self) -> bool:
        """Whether nothing leaves a channel whose values are all negative."""
        return self.unknown is None and self.nonlinearity in _RECTIFIERS


class FollowerNotes(TorchFunctionMode):
    """Notes which functions of torch read the output of a layer, while the model runs.

    Args:
        model: The model. Its modules must be in the modes that they have in the training.
        filters: Number of channels that the layer gives out.
    """

    def __init__(self, model: nn.Module, filters: int) -> None:
        super().__init__()
        self._filters = filters
        named = [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
        self._names = {id(tensor): name for name, tensor in named}
        self._trains = {name: module.training for name, module in model.named_modules()}
        self._passed: list[Tensor] = []  # the output on its way to the nonlinearity
        self._has_ended = False  # the nonlinearity was found, or another layer
        self._found = Follower()

    def begin(self, output: Tensor) -> None:
        """Follow the first output of the layer."""
        if not self._passed:
            self._passed = [output]

    def result(self) -> Follower:
        """Return what was found. Call it after the run, even if the run failed."""
        if self._has_ended or self._found.unknown:
            return self._found
        return replace(self._found, unknown="the model ended before its output was read")

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, and note it if it reads the output."""
        result = func(*args, **(kwargs or {}))
        if self._passed and isinstance(result, Tensor) and self._reads((args, kwargs)):
            name = getattr(func, "__name__", "a function").strip("_")
            self._note(name, args, kwargs or {}, result)
        return result

    def _reads(self, given: object) -> bool:
        return any(leaf is passed for leaf in tree_leaves(given) for passed in self._passed)

    def _note(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor
    ) -> None:
        if name in _SAME_VALUES:
            self._passed.append(result)
        elif self._has_ended:
            self._found = replace(self._found, unknown=f"{name} reads its output, too")
        elif name in _ARGUMENTS and self._found.norm is None:
            given = dict(zip(_ARGUMENTS[name], args, strict=False)) | dict(kwargs)
            self._found = self._norm(name, given)
            self._passed.append(result)
        else:
            self._has_ended = True
            if name == "hardtanh" and _lowest(args, kwargs) == 0:
                name = "relu6"
            if name in _SCALING:
                self._found = replace(self._found, unknown=f"{name} changes its output")
            elif name in _NONLINEAR:
                self._found = replace(self._found, nonlinearity=name)
                # In place, the result is the output itself, which later readers may read.
                self._passed = [x for x in self._passed if x is not result]

    def _norm(self, name: str, given: Mapping[str, Any]) -> Follower:
        roles = {role: given.get(argument) for role, argument in _ROLES.items()}
        tensors = {role: x for role, x in roles.items() if isinstance(x, Tensor)}
        names = {role: self._names.get(id(x)) for role, x in tensors.items()}
        known = {role: x for role, x in names.items() if x is not None}
        kind, unknown = name.removesuffix("_norm"), None
        if len(known) < len(names):
            unknown = f"its {name} computes the values that it multiplies with"
        if name == "layer_norm" and tuple(given["normalized_shape"]) != (self._filters,):
            unknown = "a layer norm of whole images follows"
        if name == "batch_norm":
            owner = next(iter(known.values()), "").rpartition(".")[0]
            is_fixed = "mean" in known and not self._trains.get(owner, True)
            kind = "running" if is_fixed else "batch"
        if kind != "running":
            known = {role: x for role, x in known.items() if role in ("gamma", "beta")}
        return Follower(
            norm=kind,
            tensors=known,
            eps=float(given.get("eps", 1e-5)),
            groups=int(given.get("num_groups", 1)),
            unknown=unknown,
        )


def _lowest(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    """Return the smallest value that `torch.nn.functional.hardtanh` gives out."""
    return args[1] if len(args) > 1 else kwargs.get("min_val")
