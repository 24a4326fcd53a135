"""Frames in the colours of verdicts around the tiles of a grid."""

import torch
from faulty_layer import drawn, faulty_layer

from kernelviz_callback import kernel_grid, kernel_health
from kernelviz_callback.drawing.verdict_frames import flag_filters
from kernelviz_callback.health.verdict_names import VERDICT_COLOURS


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
