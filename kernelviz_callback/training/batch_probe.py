"""Take the probe from the training's data, without changing which batches the training gets."""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from kernelviz_callback.probe.probe import (
    BATCH_SOURCES,
    Probe,
    ProbeSource,
    load_probe,
    probe_of_tensor,
)
from kernelviz_callback.training.lightning_compat import isolate_rng

_MOST_LEVELS = 8  # nested collections are searched for an image down to this level
# A list of 3-D tensors of more channels is more likely one of batches of sequences.
_MOST_CHANNELS = 4


def load_given_probe(source: ProbeSource = None, size: int = 224) -> Probe:
    """Load the probe of a callback as `load_probe` does. The error for a missing file says more.

    Raises:
        FileNotFoundError: If the path does not exist. The message names the batches too.
    """
    try:
        return load_probe(source, size=size)
    except FileNotFoundError as error:
        batches = " or ".join(f'"{name}"' for name in BATCH_SOURCES)
        raise FileNotFoundError(f"{error}, or {batches} for an image of the data") from None


def probe_of_batch(batch: Any, name: str, channels: int | None = None) -> Probe:
    """Take the first image of a batch.

    The image is the first item of the first 4-D tensor of the batch. If the batch has no 4-D
    tensor, the image is the middle slice of the first item of the first 5-D tensor, or else the
    first item of the first list of 3-D tensors of at most four channels, as networks for detection
    read them. Only floating-point and uint8 tensors count. Tensors with as many channels as the
    model reads come first, because a batch may also hold masks.

    Args:
        batch: A tensor, or tensors in lists, tuples, mappings and objects with attributes.
        name: Name of the probe.
        channels: Number of channels that the model reads; None if unknown.

    Raises:
        ValueError: If the batch has none of these, or the image has NaN or infinite values.

    Example:
        >>> batch = {"label": torch.zeros(2), "image": torch.zeros(2, 3, 8, 8)}
        >>> probe_of_batch(batch, "train_batch").size
        (8, 8)
    """
    for dimensions in (4, 5):
        firsts = [t[0] for t in _tensors(batch) if _holds_pictures(t, dimensions)]
        firsts = firsts if dimensions == 4 else [_middle_slice(clip, channels) for clip in firsts]
        fitting = (first for first in firsts if len(first) == channels)
        first = next(fitting, firsts[0] if firsts else None)
        if first is not None:
            return probe_of_tensor(first, name)
    if (listed := _listed_image(batch)) is not None:
        return probe_of_tensor(listed, name)
    shapes = ", ".join(str(tuple(t.shape)) for t in _tensors(batch)) or "no tensor"
    raise ValueError(
        f"probe={name!r} needs a batch with images (B, C, H, W), clips (B, C, D, H, W) or a list "
        f"of images (C, H, W); the first batch has {shapes}; pass an image or probe=None for the "
        "built-in chart"
    )


def probe_of_loader(loaders: Any, channels: int | None = None) -> Probe:
    """Take the first validation image directly from the data set.

    This is used when no validation batch has been read yet. The global random generators and those
    of the loader are restored afterwards, so the loader gives the same batches as before. A
    random generator of the data set itself is not restored.

    Args:
        loaders: ``Trainer.val_dataloaders``: a loader, or loaders in lists, tuples and mappings.
        channels: See `probe_of_batch`.

    Raises:
        ValueError: If there is no loader, if it is empty, if its data set is iterable (the training
            would not get an item that was read here), or if the item has no image.
    """
    loader = next((x for x in _leaves(loaders) if isinstance(x, DataLoader)), None)
    if loader is None or isinstance(loader.dataset, IterableDataset):
        found = (
            "Lightning has not loaded one yet"
            if loader is None
            else "an iterable data set was found"
        )
        raise ValueError(
            'probe="val_batch" takes its image from the sanity check. Without a sanity check, '
            "it needs a validation DataLoader over a map-style data set; "
            f"{found}. Keep num_sanity_val_steps and limit_val_batches above 0, or pass "
            'probe="train_batch"'
        )
    samplers = (loader, loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    generators = [g for s in samplers if (g := getattr(s, "generator", None)) is not None]
    states = [g.get_state() for g in generators]
    try:
        with isolate_rng():
            index = next(iter(loader.sampler), None)
            if index is None:
                raise ValueError(
                    'probe="val_batch" needs an image, but the validation data is empty'
                )
            sample = loader.dataset[index]
            batch = sample if loader.batch_sampler is None else loader.collate_fn([sample])
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
    return probe_of_batch(batch, "val_batch", channels)


def _middle_slice(clip: Tensor, channels: int | None) -> Tensor:
    """Take one image of a clip of shape (C, T, H, W), or (T, C, H, W) if only T fits C then."""
    if len(clip) != channels and clip.shape[1] == channels:
        clip = clip.transpose(0, 1)
    return clip[:, clip.shape[1] // 2]


def _leaves(loaders: Any) -> Iterable[Any]:
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, list | tuple):
        for item in loaders:
            yield from _leaves(item)
    else:
        yield loaders


def _holds_pictures(part: Any, dimensions: int) -> bool:
    return (
        isinstance(part, Tensor)
        and (part.is_floating_point() or part.dtype == torch.uint8)
        and part.ndim == dimensions
    )


def _listed_image(batch: Any, depth: int = 0) -> Tensor | None:
    """Return the first image of the first list of images, whose sizes may differ."""
    parts = list(_parts(batch)) if depth < _MOST_LEVELS else []
    if isinstance(batch, list | tuple) and all(
        _holds_pictures(part, 3) and len(part) <= _MOST_CHANNELS for part in parts
    ):
        return next(iter(parts), None)
    found = (_listed_image(part, depth + 1) for part in parts)
    return next((image for image in found if image is not None), None)


def _tensors(batch: Any, depth: int = 0) -> Iterable[Tensor]:
    """Yield the tensors of a batch in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif depth < _MOST_LEVELS:
        for part in _parts(batch):
            yield from _tensors(part, depth + 1)


def _parts(batch: Any) -> Iterable[Any]:
    """Return the parts of a collection. Iterators have none here: reading would use them up."""
    if isinstance(batch, Mapping):
        return batch.values()
    if isinstance(batch, list | tuple):
        return batch
    has_attributes = hasattr(batch, "__dict__") and not isinstance(batch, Tensor | type | Enum)
    return vars(batch).values() if has_attributes else ()
