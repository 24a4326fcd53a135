"""Frames around the tiles of filters with a verdict."""

from dataclasses import replace

import torch

from kernelviz_callback import kernel_health
from kernelviz_callback.drawing.verdict_frames import flag_filters
from kernelviz_callback.health.verdict_names import VERDICT_COLOURS


def test_each_filter_has_the_colour_of_its_gravest_verdict() -> None:
    weights = torch.randn(16, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    weights[2] = 0
    weights[5, 0, 0, 0] = torch.nan
    health = kernel_health(weights)
    flags = flag_filters(health)
    assert flags.colours[2] == VERDICT_COLOURS["near-zero"]
    assert flags.colours[5] == VERDICT_COLOURS["non-finite"]
    assert flags.colours == tuple(
        VERDICT_COLOURS[name] if name else None for name in health.gravest()
    )
    assert (VERDICT_COLOURS["near-zero"], "1 near-zero") in flags.legend
    assert (VERDICT_COLOURS["non-finite"], "1 non-finite") in flags.legend


def test_a_healthy_layer_has_no_frames_and_an_empty_legend() -> None:
    health = replace(kernel_health(torch.randn(9, 1, 3, 3)), verdicts=())
    flags = flag_filters(health)
    assert flags.colours == (None,) * 9
    assert flags.legend == ()
