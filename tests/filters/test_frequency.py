"""Frequency gains of 1-D filters against SciPy, for large and small weights and wide layers."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import signal

from kernelviz_callback.filters.frequency import frequency_gain


@pytest.mark.parametrize("dilation", [1, 3])
def test_the_gain_equals_that_of_scipy(dilation: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 1, 31, generator=generator)
    found = frequency_gain(weights, dilation=dilation)
    frequencies = np.linspace(0, np.pi, found.shape[1])
    for filter_, gain in zip(weights[:, 0].double().numpy(), found.numpy(), strict=True):
        taps = np.zeros(dilation * 30 + 1)
        taps[::dilation] = filter_
        _, expected = signal.freqz(taps, worN=frequencies)
        np.testing.assert_allclose(gain, np.abs(expected), atol=2e-5)


def test_the_gain_of_several_channels_is_the_root_of_their_summed_squares() -> None:
    weights = torch.randn(4, 3, 9, generator=torch.Generator().manual_seed(1))
    single = torch.stack([frequency_gain(weights[:, c : c + 1]) for c in range(3)])
    torch.testing.assert_close(frequency_gain(weights), single.square().sum(0).sqrt())


def test_the_frequencies_are_dense_enough_for_a_long_filter() -> None:
    taps = 1000
    wave = torch.cos(2 * torch.pi * 0.123 * torch.arange(taps))
    gain = frequency_gain(wave[None, None])[0]
    peak = gain.argmax().item() / (len(gain) - 1) / 2
    assert peak == pytest.approx(0.123, abs=1 / len(gain))
    assert gain.max() == pytest.approx(taps / 2, rel=0.1)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_gain_of_weights_whose_squares_are_not_float32_numbers(size: float) -> None:
    weights = torch.randn(4, 3, 9, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(frequency_gain(weights * size) / size, frequency_gain(weights))


def test_the_gain_of_a_wide_layer_takes_little_memory() -> None:
    """The spectra of 768 x 768 kernels would need more than a gigabyte if computed at once."""
    code = """
import resource, torch
from kernelviz_callback.filters.frequency import frequency_gain
torch.set_num_threads(1)
frequency_gain(torch.randn(8, 8, 3))
weights = torch.randn(768, 768, 3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
frequency_gain(weights)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 128, "MiB"


@pytest.mark.parametrize("shape", [(4, 1, 3, 3), (4, 9), (0, 1, 3)])
def test_weights_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected weights of shape \(N, C, k\), not empty"):
        frequency_gain(torch.zeros(shape))


def test_the_gain_of_a_filter_with_nan_is_nan() -> None:
    weights = torch.ones(2, 1, 5)
    weights[1, 0, 2] = torch.nan
    gain = frequency_gain(weights)
    assert gain[0].isfinite().all()
    assert gain[1].isnan().all()
    assert frequency_gain(torch.ones(1, 1, 5, dtype=torch.float16)).dtype == torch.float32
