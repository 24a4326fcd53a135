"""Run the model on a batch, and record what layers read and what follows them."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from kernelviz_callback.model.call_order import why_it_cannot_run
from kernelviz_callback.model.convolutions import weight_shape
from kernelviz_callback.model.feature_maps import module_to_run
from kernelviz_callback.model.followers import Follower, FollowerNotes
from kernelviz_callback.model.isolation import (
    CollectiveOperation,
    isolated_run,
    why_run_failed,
)

MOST_IMAGES = 16  # of a batch


@dataclass(frozen=True)
class Reading:
    """What a layer reads, and what follows it.

    Attributes:
        inputs: The input of the first call of the layer: shape (B, C * groups, ...), with at most
            16 images, in the type and on the device of the model.
        follower: What the output of the layer goes through.
    """

    inputs: Tensor
    follower: Follower


@dataclass(frozen=True)
class Readings:
    """The result of `read_inputs`.

    Attributes:
        found: Layer name to what the layer reads.
        absent: Layer name to the reason why this is not known.
    """

    found: Mapping[str, Reading] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


def read_inputs(model: nn.Module, layers: Mapping[str, nn.Module], images: Tensor) -> Readings:
    """Run a model on images of its training, and record what layers read and what follows them.

    The model is run as in `feature_maps`, until it ends. What the training does with a batch before
    it calls the model is not done here.

    Args:
        model: A model in the mode of its training, on the CPU or CUDA. Its parameters must not be
            sharded.
        layers: Name to module. The modules are convolutions and parts of the model.
        images: Shape (B, C, ...), not modified. At most the first 16 are read.

    Returns:
        What is known of each layer, or why nothing is.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        >>> images = net[0].weight.new_ones(20, 3, 9, 9)
        >>> found = read_inputs(net, {"0": net[0]}, images).found["0"]
        >>> found.inputs.shape, found.follower.norm, found.follower.nonlinearity
        (torch.Size([16, 3, 9, 9]), 'batch', 'relu')
    """
    reason = why_it_cannot_run(model)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if reason is None and parameter is None:
        reason = "the model has no weights"
    if reason is not None or parameter is None:
        return Readings(absent=dict.fromkeys(layers, reason or ""))
    batch = images[:MOST_IMAGES].to(parameter.device, parameter.dtype, copy=True)
    inputs: dict[str, Tensor] = {}
    notes = {name: FollowerNotes(model, weight_shape(x)[0]) for name, x in layers.items()}
    reason = "the model ended without calling it"
    try:
        with isolated_run(model, batch.device), ExitStack() as following:
            for name, layer in layers.items():
                _record(name, layer, inputs, notes[name])
                following.enter_context(notes[name])
            module_to_run(model, layers)(batch)
    except (Exception, CollectiveOperation) as error:
        reason = why_run_failed(error, batch.shape)
    return Readings(
        {name: Reading(values, notes[name].result()) for name, values in inputs.items()},
        {name: reason for name in layers if name not in inputs},
    )


def _record(name: str, layer: nn.Module, inputs: dict[str, Tensor], notes: FollowerNotes) -> None:
    def before(module: nn.Module, given: tuple[Any, ...]) -> None:
        if name not in inputs and given and isinstance(given[0], Tensor):
            inputs[name] = given[0].detach().clone()

    def after(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            notes.begin(output)

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after)
