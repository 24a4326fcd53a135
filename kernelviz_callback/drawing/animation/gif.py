"""Encoding of animated GIFs: one palette for all frames, and only the changes of each frame."""

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import GifImagePlugin, Image
from torch import Tensor

from kernelviz_callback.drawing.animation.caption import Canvas

CLEAR = 255  # the index of transparency: the colour of the frame before stays
_ROUNDS = 3  # of k-means; further rounds hardly improve a palette
_SAMPLE = 4096  # colours that a palette is fitted to, at most; twice as many gain 0.1 of 255 levels
_CHUNK = 1024  # colours that are matched together; they fit in a processor's cache
_LOOP = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"  # forever


def fit_palette(colours: Canvas, fixed: Canvas) -> Canvas:
    """Choose 255 colours that approximate many colours well: median cut, then k-means.

    Args:
        colours: The colours to approximate, shape (n, 3).
        fixed: Colours that the palette must contain exactly, shape (m, 3), m < 255.

    Returns:
        Shape (255, 3), the fixed colours first. The same colours always give the same palette.
    """
    sample = colours[:: -(-len(colours) // _SAMPLE)]
    free = CLEAR - len(fixed)
    image = Image.fromarray(sample[None])
    median_cut = image.quantize(free, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    cuts = np.asarray(median_cut.getpalette("RGB"), np.uint8).reshape(-1, 3)[:free]
    centres = torch.from_numpy(cuts).float()
    points = torch.from_numpy(sample).float()
    for _ in range(_ROUNDS):
        nearest = torch.from_numpy(_nearest(points, centres))
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    palette = np.zeros((CLEAR, 3), np.uint8)
    chosen = centres.round().to(torch.uint8).numpy()
    palette[: len(fixed)] = fixed
    palette[len(fixed) : len(fixed) + len(chosen)] = chosen
    return palette


def palette_indices(colours: Canvas, palette: Canvas) -> Canvas:
    """Return the index of the nearest palette colour for each colour: (..., 3) to (...)."""
    flat = torch.from_numpy(colours.reshape(-1, 3)).float()
    centres = torch.from_numpy(palette).float()
    parts = [_nearest(part, centres).astype(np.uint8) for part in torch.split(flat, _CHUNK)]
    return np.concatenate(parts).reshape(colours.shape[:-1])


def encode_gif(frames: Sequence[Canvas], palette: Canvas, milliseconds: Sequence[int]) -> bytes:
    """Encode frames as a GIF that loops forever.

    Args:
        frames: Indices into the palette, shape (H, W) each.
        palette: Colours, shape (at most 255, 3).
        milliseconds: How long each frame is shown, a multiple of 10.
    """
    height, width = frames[0].shape
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    parts = [struct.pack("<6sHHBBB", b"GIF89a", width, height, 0xF7, 0, 0), table.tobytes(), _LOOP]
    seen = np.full_like(frames[0], CLEAR)
    for frame, duration in zip(frames, milliseconds, strict=True):
        is_same = frame == seen
        rows = np.flatnonzero(~is_same.all(1))
        first, last = (rows[0], rows[-1]) if len(rows) else (0, 0)
        part = slice(first, last + 1)
        # CLEAR is 255: all bits of a pixel that stays.
        image = Image.fromarray(frame[part] | -is_same[part].view(np.uint8))
        # Disposal 1 keeps the frame, so that the next one is drawn over it.
        parts += GifImagePlugin.getdata(
            image, (0, int(first)), duration=duration, transparency=CLEAR, disposal=1
        )
        seen = frame
    return b"".join(parts) + b";"


def _nearest(points: Tensor, centres: Tensor) -> npt.NDArray[np.intp]:
    # The nearest c has the largest -|p - c|^2 / 2. Its part -|p|^2 / 2 is the same for all c. The
    # factors are whole numbers up to 255: their product is exact even if the training lets torch
    # multiply in bfloat16.
    nearness = torch.addmm(-centres.square().sum(1) / 2, points, centres.T)
    nearest: npt.NDArray[np.intp] = nearness.numpy().argmax(
        1
    )  # NumPy's argmax is several times as fast as torch's here
    return nearest
