"""Health and pictures do not depend on torch's default dtype.

A training in half or double precision changes the default dtype in all threads. Each default is
tested in a new process, because cached tables would keep the dtype of an earlier default.
"""

import pytest
from forked import run_python

EXAMINE = """
import sys
import torch
from kernelviz_callback import Geometry, kernel_health, load_probe, measure_probe
from kernelviz_callback.drawing.layer_pictures import kernel_picture, response_picture

torch.set_default_dtype(getattr(torch, sys.argv[1]))
generator = torch.Generator().manual_seed(0)

def drawn(*shape):
    return torch.randn(shape, generator=generator, dtype=torch.float32)

found = []
for shape, groups in (((24, 3, 7, 7), 1), ((9, 1, 3, 5), 3), ((600, 2, 3, 3), 1)):
    first, weights = drawn(*shape), drawn(*shape)
    weights[0], weights[1] = 0, 20 * weights[2]
    weights[3, 0, 0, 0] = torch.nan
    probe = load_probe(None)
    seen = probe.for_channels(shape[1] * groups)
    energy = measure_probe(seen, shape[2:], channels=shape[1], groups=groups)
    health = kernel_health(weights, "conv", first=first, previous=weights + 1e-3 * first,
                           steps_since_previous=1, energy=energy, groups=groups)
    geometry = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), groups)
    found.append(health.to_dict())
    found.append([str(values.dtype) for values in vars(health.filters).values()])
    for picture in (
        kernel_picture(weights, layer="conv", groups=groups, health=health),
        response_picture(weights, geometry, probe, layer="conv", scale="layer"),
    ):
        found.append(hash(picture.pixels.numpy().tobytes()))
for shape in ((24, 2, 31), (24, 3, 3, 5, 5)):
    weights = drawn(*shape)
    health = kernel_health(weights, "conv", first=weights + 0.1 * drawn(*shape))
    found.append(health.to_dict())
    ones = (1,) * (len(shape) - 2)
    geometry = Geometry(f"Conv{len(ones)}d", ones, (0,) * len(ones), ones, 1)
    for picture in (
        kernel_picture(weights, layer="conv", health=health),
        response_picture(weights, geometry, load_probe(size=64), layer="conv", scale="layer"),
    ):
        found.append(hash(picture.pixels.numpy().tobytes()))
print(found)
"""


@pytest.fixture(scope="module")
def usual() -> str:
    return examined("float32")


@pytest.mark.processes
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_the_default_dtype_changes_nothing(dtype: str, usual: str) -> None:
    assert "duplicate" in usual
    assert examined(dtype) == usual


def examined(dtype: str) -> str:
    done = run_python("-c", EXAMINE, dtype, environment={"PYTHONHASHSEED": "0"})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
