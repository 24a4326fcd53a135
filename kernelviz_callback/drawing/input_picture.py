"""Picture the images that a layer reads in the training, with one honest scale for all."""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor

from kernelviz_callback.drawing.caption_layout import draw_caption
from kernelviz_callback.drawing.picture import Layout, Picture

_LARGEST_TILE = 224  # pixels: small images are enlarged up to this
_GRID_SIDE = 900  # pixels
_GAP = 4  # pixels between images
_MOST_CHANNELS = 8  # of one image, side by side, if they are not the colours of one picture
_NON_FINITE = (255, 0, 255)


def input_picture(inputs: Tensor, *, title: str, notes: Sequence[str] = ()) -> Picture:
    """Picture the images that a layer reads: what its normalisation and augmentation made of them.

    The smallest value of all images is black and the largest is white, or full colour. So one sees
    at once if images are not normalised, if channels are swapped, if a band is empty or constant,
    or if all images are the same.

    Three channels are the colours of one picture. One channel is grey. Of any other number, at most
    eight channels stand side by side in grey. Of a 3-D input the middle slice is drawn. NaN and
    infinity are magenta.

    Args:
        inputs: Shape (B, C, H, W) or (B, C, D, H, W), floating point, any device, not modified.
        title: First line of the caption.
        notes: More lines of the caption.

    Raises:
        ValueError: If the input is not a batch of images.

    Example:
        >>> input_picture(torch.rand(16, 3, 32, 32), title="what conv1 reads").layout.columns
        4
    """
    if inputs.ndim == 5:
        inputs = inputs[:, :, inputs.shape[2] // 2]
    if inputs.ndim != 4 or 0 in inputs.shape:
        raise ValueError(
            f"expected images of shape (B, C, H, W) or (B, C, D, H, W), not empty; found "
            f"{tuple(inputs.shape)}"
        )
    images = inputs.detach().float().cpu()
    finite = images.isfinite()
    known = images[finite]
    low, high = (known.min().item(), known.max().item()) if len(known) else (0.0, 0.0)
    shown = images.shape[1] if images.shape[1] == 3 else min(images.shape[1], _MOST_CHANNELS)
    levels = ((images[:, :shown] - low) / max(high - low, 1e-30) * 255).nan_to_num(0, 255, 0)
    tiles = _as_tiles(levels.round().clamp(0, 255).to(torch.uint8), finite[:, :shown])
    count, height, width, _ = tiles.shape
    columns = max(1, min(count, round((count * height / width) ** 0.5)))
    zoom = min(_LARGEST_TILE // max(height, width), _GRID_SIDE // (columns * width))
    if zoom > 1:
        tiles = tiles.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    elif (step := ceil(columns * width / _GRID_SIDE)) > 1:
        tiles = tiles[:, ::step, ::step]
    tight = Layout(count, columns, tiles.shape[1], tiles.shape[2], gap=_GAP)
    bar = torch.arange(256, dtype=torch.uint8, device="cpu")[:, None].expand(-1, 3)
    left_out = images.shape[1] - shown
    more = f"; {left_out} more channels are not shown" if left_out else ""
    scale = f"one scale for all images and channels{more}"
    pixels, layout = draw_caption(tight, [title, *notes, scale], bar, (f"{low:.3g}", f"{high:.3g}"))
    for i, tile in enumerate(tiles):
        pixels[layout.box(i)] = tile
    return Picture(
        pixels, layout, torch.full((count,), high - low, dtype=torch.float32, device="cpu")
    )


def _as_tiles(levels: Tensor, finite: Tensor) -> Tensor:
    """Turn levels (B, C, H, W) into pictures (B, H, W', 3), with magenta where not finite."""
    if levels.shape[1] == 3:
        pictures, good = levels.movedim(1, 3), finite.all(1)
    else:
        # The channels of an image side by side, with a line of black between them.
        wide = torch.nn.functional.pad(levels, (0, 1 if levels.shape[1] > 1 else 0))
        good = torch.nn.functional.pad(finite, (0, 1 if levels.shape[1] > 1 else 0), value=True)
        wide, good = (x.movedim(1, 2).flatten(2) for x in (wide, good))
        pictures = wide[..., None].expand(-1, -1, -1, 3)
    magenta = torch.tensor(_NON_FINITE, dtype=torch.uint8, device="cpu")
    return torch.where(good[..., None], pictures, magenta)
