"""Helpers for tests of film strips and animations: sequences of random filters, their pixels."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kernelviz_callback.drawing.animation.frame import FrameRenderer
from kernelviz_callback.drawing.animation.sampling import FilterSequence, Reading, read_sequences
from kernelviz_callback.drawing.animation.strip import FilmLayout
from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.picture import Picture


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Draw random weights: the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sequence_of(weights: dict[int, Tensor], **options) -> FilterSequence:
    """Make a sequence from step to weights. An epoch has ten steps."""
    return read_sequences(
        list(weights), lambda step: Reading(step // 10, {"conv": weights[step]}), **options
    )["conv"]


def noise_sequence(*shape: int, steps: Iterable[int], **options: Any) -> FilterSequence:
    """Make a sequence with new random weights at every step, which is hard to compress.

    The weights are drawn when they are read, so that they do not take memory all at once.
    """
    return read_sequences(
        list(steps), lambda step: Reading(None, {"conv": drawn(*shape, seed=step)}), **options
    )["conv"]


def renderer_of(sequence: FilterSequence, **options: Any) -> FrameRenderer:
    steps = [frame.step for frame in sequence.frames]
    return FrameRenderer(sequence, steps, sequence.half_ranges(), scale="layer", **options)


def decoded(content: bytes) -> list[np.ndarray]:
    """Decode the frames of a GIF as a browser shows them, shape (H, W, 3) each."""
    image = Image.open(io.BytesIO(content))
    frames = []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        frames.append(np.asarray(image.convert("RGB")).astype(int))
    return frames


def frame_in(film: Picture, index: int, column: int) -> Tensor:
    """The pixels of one filter in one snapshot of a film strip."""
    assert isinstance(film.layout, FilmLayout)
    return film.pixels[film.layout.frame(index, column)]


def pixels_of(weights: Tensor, half_range: Tensor) -> Tensor:
    """The expected colours of a filter with one or three channels, not enlarged: (H, W, 3)."""
    levels = to_levels(weights, half_range)
    return levels.permute(1, 2, 0) if len(weights) == 3 else diverging(levels)
