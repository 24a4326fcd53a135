"""Layers through imagined trainings."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from kernelviz_callback.drawing.animation.sampling import Reading, Reel, gather_reels


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gathered(weights: dict[int, Tensor], **options) -> Reel:
    return gather_reels(
        list(weights), lambda step: Reading(step // 10, {"conv": weights[step]}), **options
    )["conv"]


def noise(*shape: int, steps: Iterable[int], **options: Any) -> Reel:
    """Another noise at every step, drawn when it is read: the hardest there is to compress."""
    return gather_reels(
        list(steps), lambda step: Reading(None, {"conv": drawn(*shape, seed=step)}), **options
    )["conv"]
