"""Frames around the tiles of filters with a verdict."""

from dataclasses import replace

import torch
from faulty_layer import drawn, faulty_layer

from kernelviz_callback import kernel_grid, kernel_health
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


def test_a_healthy_layer_has_no_frames_and_says_so() -> None:
    flags = flag_filters(replace(kernel_health(torch.randn(9, 3, 7, 7)), verdicts=()))
    assert flags.colours == (None,) * 9
    assert flags.legend == ((None, "no filter has a verdict against it"),)


def test_the_remarks_have_the_verdicts_that_are_not_possible() -> None:
    healthy = (None, "no filter has a verdict against it")
    remarks = ("noise-like is not judged: kernels of 1x9 are too small",)
    noise = drawn(8, 1, 9)
    untrained = flag_filters(kernel_health(noise))
    assert (untrained.legend, untrained.remarks) == ((healthy,), remarks)
    noise[2] = 0
    faulty = flag_filters(kernel_health(noise))
    assert faulty.legend == ((VERDICT_COLOURS["near-zero"], "1 near-zero"),)
    assert faulty.remarks == remarks
    one = flag_filters(kernel_health(drawn(1, 1, 3, 3))).remarks
    assert "duplicate, dominating, frozen are not judged: there is one filter" in one
    tops = [kernel_grid(noise, flags=flags).layout.top for flags in (untrained, faulty)]
    assert tops[0] == tops[1], "the tiles do not move"


def test_a_long_remark_stays_inside_the_picture() -> None:
    flags = flag_filters(kernel_health(drawn(1, 1, 9)))
    plain, remarked = kernel_grid(drawn(1, 1, 9)), kernel_grid(drawn(1, 1, 9), flags=flags)
    assert remarked.pixels.shape[1] == plain.pixels.shape[1]
    assert remarked.layout.top >= plain.layout.top + 3 * 19
    background = remarked.pixels[0, 0]
    assert (remarked.pixels[: remarked.layout.top, -4:] == background).all()


def test_frames_are_around_the_tiles_and_cover_no_weight() -> None:
    weights, previous = faulty_layer()
    health = kernel_health(weights, previous=previous)
    plain, framed = kernel_grid(weights), kernel_grid(weights, flags=flag_filters(health))
    for i, name in enumerate(health.gravest()):
        assert torch.equal(framed.tile(i), plain.tile(i))
        rows, columns = framed.layout.box(i, margin=1)
        ring = torch.cat([framed.pixels[rows, columns][0], framed.pixels[rows, columns][:, -1]])
        is_framed = (ring == torch.tensor(VERDICT_COLOURS[name or "silent"])).all()
        assert is_framed == (name is not None)
    healthy = kernel_grid(
        weights[:1].repeat(32, 1, 1, 1), flags=flag_filters(kernel_health(drawn(32, 3, 3, 3)))
    )
    assert healthy.layout.gap == framed.layout.gap
