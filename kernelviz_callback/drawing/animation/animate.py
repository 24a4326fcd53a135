"""The kernel grid of a layer as an animation: the training in a few seconds."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from kernelviz_callback.drawing.animation.caption import Canvas
from kernelviz_callback.drawing.animation.frame import (
    SMALL_SIDE,
    FrameRenderer,
    PaintedKernels,
    paint_kernels,
    text_colours,
)
from kernelviz_callback.drawing.animation.gif import encode_gif, fit_palette, palette_indices
from kernelviz_callback.drawing.animation.sampling import FilterSequence, Frame, SequenceScale
from kernelviz_callback.drawing.animation.strip import MOST_BYTES
from kernelviz_callback.drawing.caption_layout import BACKGROUND
from kernelviz_callback.drawing.colour import NON_FINITE_COLOURS, diverging

_FEWEST_FRAMES = 12  # of an animation that is too large: below this its kernels become smaller
_MILLISECONDS = 6000  # that all frames together take, about
_SHORTEST, _LONGEST = 50, 500  # milliseconds that one frame may take
_LAST = 2500  # milliseconds that the last frame, the result of the training, is shown for
_TEXT_COLOURS = 16


def evolution_gif(
    sequence: FilterSequence,
    *,
    scale: SequenceScale = "layer",
    side: int = SMALL_SIDE,
    most_bytes: int = MOST_BYTES,
) -> bytes:
    """Animate the kernel grid: noise becomes edges and colours, and some filters die.

    The frames are drawn as `kernel_grid` draws them, on one scale, with step and epoch on a
    logarithmic time line below. They loop, and the last frame is shown longer. A GIF has 256
    colours. The diverging map keeps every second level, so no weight is off by more than one level
    of 127. RGB colours are fitted to all frames together. In the frames of a training they are off
    by 2 to 5 levels of 255 (root mean square), in pure noise by up to 10. Zero is exact, and the
    channels of a grey pixel differ by at most 8 levels.

    Args:
        sequence: The layer through the training; each of its frames becomes one frame.
        scale: The option of `FilterSequence.half_ranges`.
        side: Height and width, about, that the kernels are enlarged to by a whole factor, in
            pixels.
        most_bytes: Largest size of the file. If it is exceeded, frames are left out, down to 12 of
            them. After that, kernels are enlarged less.

    Raises:
        ValueError: If a single frame of kernels that are not enlarged is larger than that.
    """
    half_ranges = sequence.half_ranges(scale)
    coloured = {f.step: paint_kernels(f, sequence.crop, half_ranges) for f in sequence.frames}
    is_rgb = sequence.crop.style.is_rgb
    palette = _palette([painted.colours for painted in coloured.values()], is_rgb)
    to_indices = palette_indices if is_rgb else _indices_of_few
    indexed = {
        step: painted._replace(colours=to_indices(painted.colours, palette))
        for step, painted in coloured.items()
    }
    zoom = None
    while True:
        steps = [frame.step for frame in sequence.frames]
        renderer = FrameRenderer(sequence, steps, half_ranges, scale=scale, side=side, zoom=zoom)
        pictures = _indexed_pictures(renderer, sequence.frames, indexed, palette)
        content = encode_gif(pictures, palette, durations(len(pictures)))
        if len(content) <= most_bytes:
            return content
        share = 0.95 * most_bytes / len(content)
        count = len(pictures)
        if count > _FEWEST_FRAMES:
            sequence = sequence.thin_out(max(_FEWEST_FRAMES, int(count * share)))
        elif renderer.zoom > 1:
            zoom = max(1, min(renderer.zoom - 1, int(renderer.zoom * share)))
        elif count > 1:
            sequence = sequence.thin_out(max(1, int(count * share)))
        else:
            raise ValueError(
                f"{sequence.layer}: expected kernels of which a frame fits in {most_bytes} bytes; "
                f"found {'x'.join(map(str, sequence.crop.shape[1:]))}, which takes {len(content)}; "
                "choose another layer or a film strip"
            )


def durations(count: int) -> list[int]:
    """Return the milliseconds of each frame: about six seconds in all, and more for the last."""
    each = min(max(_MILLISECONDS // count, _SHORTEST), _LONGEST) // 10 * 10
    return [each] * (count - 1) + [_LAST]


def moving_pictures(
    renderer: FrameRenderer, frames: Iterable[Frame], half_ranges: Tensor
) -> Iterator[Canvas]:
    """Draw the pictures of an animation one by one, in true colours: shape (H, W, 3), uint8 each.

    Args:
        renderer: Draws the kernels and the time on the background.
        frames: The snapshots to draw.
        half_ranges: The magnitude at the ends of each filter's colour scale, shape (filters,).
    """
    stripes = np.array(NON_FINITE_COLOURS, np.uint8)
    for frame in frames:
        picture = renderer.background.copy()
        renderer.draw_kernels(picture, paint_kernels(frame, renderer.crop, half_ranges), stripes)
        picture[renderer.time_line] = text_colours(renderer.draw_time(frame))
        yield picture


def _indexed_pictures(
    renderer: FrameRenderer,
    frames: Sequence[Frame],
    indexed: dict[int, PaintedKernels],
    palette: Canvas,
) -> list[Canvas]:
    """Draw pictures of indices into a palette."""
    stripes = palette_indices(np.array(NON_FINITE_COLOURS, np.uint8), palette)
    text = palette_indices(text_colours(np.arange(256, dtype=np.uint8)), palette)
    background = _indices_of_few(renderer.background, palette)
    pictures = []
    for frame in frames:
        picture = background.copy()
        renderer.draw_kernels(picture, indexed[frame.step], stripes)
        picture[renderer.time_line] = text[renderer.draw_time(frame)]
        pictures.append(picture)
    return pictures


def _indices_of_few(picture: Canvas, palette: Canvas) -> Canvas:
    """Return the same as `palette_indices`, faster for a picture that is mostly background."""
    background = np.array(BACKGROUND, np.uint8)
    indices = np.full(picture.shape[:-1], palette_indices(background, palette))
    red, green, blue = (picture[..., channel].astype(np.uint32) for channel in range(3))
    packed = red << 16 | green << 8 | blue
    is_other = packed != packed.dtype.type(int.from_bytes(background.tobytes(), "big"))
    few, places = np.unique(packed[is_other], return_inverse=True)
    colours = np.stack([few >> 16, few >> 8 & 255, few & 255], -1).astype(np.uint8)
    indices[is_other] = palette_indices(colours, palette)[places]
    return indices


def _palette(coloured: Sequence[Canvas], is_rgb: bool) -> Canvas:
    """Choose the colours of the text, of the stripes, of zero, and of the kernels."""
    text = text_colours(np.linspace(0, 255, _TEXT_COLOURS).astype(np.uint8))
    around = np.concatenate([text, np.array(NON_FINITE_COLOURS, np.uint8)])
    if not is_rgb:
        # Levels 2, 4, ..., 254. Zero, 128, is among them.
        levels = torch.arange(2, 256, 2, dtype=torch.uint8, device="cpu")
        return np.concatenate([around, diverging(levels[None])[:, 0].T.numpy()])
    greys = np.array([*range(8, 255, 8), 255], np.uint8)[:, None].repeat(3, 1)
    kernels = np.concatenate([colours.reshape(-1, 3) for colours in coloured])
    return fit_palette(kernels, np.concatenate([around, greys]))
