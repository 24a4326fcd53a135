"""A probe out of the training's own data, taken without disturbing the data."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from kernelviz_callback.probe.probe import Probe, probe_of_tensor
from kernelviz_callback.training.lightning_compat import isolate_rng

_DEEPEST = 8  # collections in collections that a batch is searched through


def probe_of_batch(batch: Any, name: str) -> Probe:
    """Take the first image of a batch, whatever collection it is packed in.

    The image is the first item of the first floating-point or uint8 tensor with four dimensions;
    where there is none, the middle slice of the first item of the first with five.

    Raises:
        ValueError: If the batch holds no such tensor.

    Example:
        >>> batch = {"label": torch.zeros(2), "image": torch.zeros(2, 3, 8, 8)}
        >>> probe_of_batch(batch, "train_batch").size
        (8, 8)
    """
    for dimensions in (4, 5):
        for tensor in _tensors(batch):
            is_picture = tensor.is_floating_point() or tensor.dtype == torch.uint8
            if is_picture and tensor.ndim == dimensions:
                first = tensor[0]
                return probe_of_tensor(first if dimensions == 4 else _middle(first), name)
    shapes = ", ".join(str(tuple(t.shape)) for t in _tensors(batch)) or "no tensor"
    raise ValueError(
        f"probe={name!r} needs a batch with images (B, C, H, W) or clips (B, C, D, H, W); the "
        f"first batch has {shapes}; "
        "pass an image or probe=None for the built-in chart"
    )


def probe_of_loader(loaders: Any) -> Probe:
    """Take the first validation image where no validation batch has been seen yet.

    The sample is read from the data set itself, with the global random generators and the loader's
    put back afterwards, so that the loader gives the same batches as if nobody had looked. A data
    set that draws from a generator of its own is the exception.

    Raises:
        ValueError: If there is no loader, it is empty, or its data can only be read by consuming
            it.
    """
    loader = next((x for x in _leaves(loaders) if isinstance(x, DataLoader)), None)
    if loader is None or isinstance(loader.dataset, IterableDataset):
        found = (
            "Lightning has loaded none yet" if loader is None else "an iterable data set was found"
        )
        raise ValueError(
            'probe="val_batch" takes its image from the sanity check; without one it needs a '
            f"validation DataLoader over a map-style data set, and {found}; leave "
            'num_sanity_val_steps above 0 or use probe="train_batch"'
        )
    samplers = (loader, loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    generators = [g for s in samplers if (g := getattr(s, "generator", None)) is not None]
    states = [g.get_state() for g in generators]
    try:
        with isolate_rng():
            index = next(iter(loader.sampler), None)
            if index is None:
                raise ValueError(
                    'probe="val_batch" needs an image, and the validation data is empty'
                )
            sample = loader.dataset[index]
            batch = sample if loader.batch_sampler is None else loader.collate_fn([sample])
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
    return probe_of_batch(batch, "val_batch")


def _middle(clip: Tensor) -> Tensor:
    return clip[:, clip.shape[1] // 2]


def _leaves(loaders: Any) -> Iterable[Any]:
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, list | tuple):
        for item in loaders:
            yield from _leaves(item)
    else:
        yield loaders


def _tensors(batch: Any, depth: int = 0) -> Iterable[Tensor]:
    """The tensors of a batch, in order. Nothing is consumed: iterators are left alone."""
    if isinstance(batch, Tensor):
        yield batch
        return
    if isinstance(batch, Mapping):
        parts: Iterable[Any] = batch.values()
    elif isinstance(batch, list | tuple):
        parts = batch
    elif hasattr(batch, "__dict__") and not isinstance(batch, type | Enum):
        parts = vars(batch).values()
    else:
        return
    if depth < _DEEPEST:
        for part in parts:
            yield from _tensors(part, depth + 1)
