"""Curves and frequency responses of the Kernels tab equal those of Python's pictures."""

import numpy as np
import pytest
import torch
from engine_page import Engine

from kernelviz_callback.drawing.colour import diverging, to_levels
from kernelviz_callback.drawing.curves import draw_curves
from kernelviz_callback.filters.frequency import frequency_gain

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("taps", [1, 2, 9, 40, 333])
@pytest.mark.parametrize("is_spoilt", [False, True])
def test_curves_equal_those_of_pictures(engine: Engine, taps: int, is_spoilt: bool) -> None:
    values = torch.randn(taps, generator=torch.Generator().manual_seed(taps))
    if is_spoilt:
        values[taps // 2] = torch.inf
    for height, width, end in ((20, 40, 2.0), (6, 120, 0.5), (2, 40, 0.0)):
        found = engine(
            """const picture = new ImageData(width, height);
            const pixels = new Uint32Array(picture.data.buffer);
            paintCurve(pixels, 0, width, values, height, width, end);
            return picture;""",
            values=values,
            height=height,
            width=width,
            end=end,
        )
        ends = torch.tensor([end])
        drawn = draw_curves(values[None, None], ends, height=height, width=width)[0]
        bad = ~drawn[0].isfinite()
        expected = diverging(to_levels(drawn.nan_to_num(), ends))[0].permute(1, 2, 0)
        assert bad.any() == is_spoilt
        np.testing.assert_array_equal(found[..., :3][~bad], expected.numpy()[~bad])
        assert (found[..., 3] == 255).all()
        assert (found[..., 1][bad] == 0).all()


@pytest.mark.parametrize(
    ("shape", "dilation"),
    [((3, 1, 1), 1), ((4, 3, 31), 2), ((2, 5, 9), 100), ((2, 1, 257), 1), ((1, 2, 700), 3)],
)
def test_gains_equal_those_of_pictures(
    engine: Engine, shape: tuple[int, int, int], dilation: int
) -> None:
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    script = """const series = {geometry: {dilation: [dilation]}};
        const request = gainRequest({series, shape}, values, channel);
        return Array.from({length: shape[0]}, (_, filter) => gainOf(request, filter));"""
    given = {"values": weights, "shape": list(shape), "dilation": dilation}
    found = np.array(engine(script, channel="all", **given))
    expected = frequency_gain(weights, dilation=dilation)
    np.testing.assert_allclose(found, expected, atol=2e-6 * float(expected.max()))
    last = shape[1] - 1
    found = np.array(engine(script, channel=last, **given))
    expected = frequency_gain(weights[:, last:], dilation=dilation)
    np.testing.assert_allclose(found, expected, atol=2e-6 * float(expected.max()))
