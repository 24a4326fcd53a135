"""Collect and compare everything about a trained model that the callback could change."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule


def fingerprint(model: LightningModule) -> dict[str, Any]:
    return {
        "losses": model.losses,
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "modes": {n: m.training for n, m in model.named_modules()},
        "grad": {n: p.requires_grad for n, p in model.named_parameters()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1],
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "hooks": {n: len(m._forward_hooks) for n, m in model.named_modules()},
    }


def assert_same(a: Any, b: Any, path: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b), path
    else:
        assert a == b, path
