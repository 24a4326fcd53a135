"""Responses against a slow reference, and their independence of the training's settings."""

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.nn import functional as F

from kernelviz_callback import channel_responses, summed_responses
from kernelviz_callback.filters.responses import response_size


def slow_responses(
    probe: Tensor, weights: Tensor, dilation: tuple[int, int], groups: int
) -> Tensor:
    """Compute the responses from their definition with Python's floats."""
    filters, channels, kernel_height, kernel_width = weights.shape
    height = probe.shape[1] - dilation[0] * (kernel_height - 1)
    width = probe.shape[2] - dilation[1] * (kernel_width - 1)
    image, kernels = probe.tolist(), weights.tolist()
    out = torch.zeros(filters, channels, height, width)
    for o, c, y, x in itertools.product(
        range(filters), range(channels), range(height), range(width)
    ):
        source = o // (filters // groups) * channels + c
        out[o, c, y, x] = sum(
            image[source][y + dilation[0] * i][x + dilation[1] * j] * kernels[o][c][i][j]
            for i in range(kernel_height)
            for j in range(kernel_width)
        )
    return out


SHAPES = [  # filters, channels per group, groups, kernel, dilation
    (2, 3, 1, (3, 3), (1, 1)),
    (4, 1, 4, (3, 2), (1, 1)),
    (6, 2, 3, (1, 1), (1, 1)),
    (2, 1, 1, (2, 3), (2, 1)),
    (4, 2, 2, (3, 3), (2, 2)),
    (8, 1, 2, (4, 4), (1, 1)),
]


@pytest.mark.parametrize(("filters", "channels", "groups", "kernel", "dilation"), SHAPES)
def test_responses_equal_their_definition(filters, channels, groups, kernel, dilation) -> None:
    torch.manual_seed(0)
    probe = torch.randn(channels * groups, 9, 8)
    weights = torch.randn(filters, channels, *kernel)
    options = {"dilation": dilation, "groups": groups}
    expected = slow_responses(probe, weights, dilation, groups)
    torch.testing.assert_close(channel_responses(probe, weights, **options), expected)
    summed = summed_responses(probe, weights, **options)
    torch.testing.assert_close(summed, expected.sum(1, keepdim=True))
    layer = F.conv2d(probe[None], weights, dilation=dilation, groups=groups)[0]
    torch.testing.assert_close(summed[:, 0], layer)


@settings(max_examples=60)
@given(
    st.sampled_from(SHAPES),
    st.integers(1, 5),
    st.integers(12, 21),
    st.integers(12, 21),
    st.integers(0, 2**31),
)
def test_shrunk_responses_are_averages_of_the_full_responses(
    shape, shrink, height, width, seed
) -> None:
    filters, channels, groups, kernel, dilation = shape
    generator = torch.Generator().manual_seed(seed)
    probe = torch.randn(channels * groups, height, width, generator=generator)
    weights = torch.randn(filters, channels, *kernel, generator=generator)
    full = channel_responses(probe, weights, dilation=dilation, groups=groups)
    small = channel_responses(probe, weights, dilation=dilation, groups=groups, shrink=shrink)
    tolerance = 1e-6 * full.abs().max().item()
    torch.testing.assert_close(small, F.avg_pool2d(full, shrink), atol=tolerance, rtol=0)


def test_permuted_filters_have_permuted_responses_and_inputs_do_not_change() -> None:
    probe, weights = torch.randn(3, 10, 10), torch.randn(5, 3, 3, 3)
    before = probe.clone(), weights.clone()
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        channel_responses(probe, weights[order]), channel_responses(probe, weights)[order]
    )
    assert torch.equal(probe, before[0])
    assert torch.equal(weights, before[1])


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_a_lower_matmul_precision_does_not_change_the_responses(precision) -> None:
    probe, weights = torch.randn(3, 32, 32), torch.randn(8, 3, 7, 7)
    expected = channel_responses(probe, weights)
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = channel_responses(probe, weights)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_responses_need_no_gradient() -> None:
    weights = torch.randn(2, 1, 3, 3, requires_grad=True)
    assert not channel_responses(torch.rand(1, 8, 8), weights).requires_grad


def test_a_kernel_larger_than_the_probe_is_refused() -> None:
    with pytest.raises(ValueError, match=r"covers 5x5 pixels.*only 4x9.*less elongated"):
        response_size((4, 9), (3, 3), (2, 2))


def test_channels_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"filter 3 input channels; the probe has 4"):
        channel_responses(torch.zeros(4, 8, 8), torch.zeros(2, 3, 3, 3))


@pytest.mark.parametrize("shrink", [1, 2])
def test_a_probe_with_many_channels_is_summed_in_parts(monkeypatch, shrink) -> None:
    monkeypatch.setattr("kernelviz_callback.filters.responses.CHUNK_BYTES", 1)
    probe, weights = torch.rand(40, 11, 12), torch.randn(5, 40, 3, 3)
    expected = F.avg_pool2d(F.conv2d(probe[None], weights), shrink)[0]
    found = summed_responses(probe, weights, shrink=shrink)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-5, atol=1e-4)
