"""The kernel grid of a layer as an animation: the training in a few seconds."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from kernelviz_callback.drawing.animation.caption import Canvas
from kernelviz_callback.drawing.animation.frame import (
    SMALL_SIDE,
    Painted,
    Stage,
    mixed,
    paint_kernels,
)
from kernelviz_callback.drawing.animation.gif import encode_gif, fitted_palette, numbers_of
from kernelviz_callback.drawing.animation.sampling import Reel, ReelScale, Shot
from kernelviz_callback.drawing.animation.strip import MOST_BYTES
from kernelviz_callback.drawing.colour import NON_FINITE_COLOURS, diverging

_LEAST_SHOTS = 12  # of an animation that is too large: then its kernels become smaller instead
_MILLISECONDS = 6000  # that all frames together take, about
_SHORTEST, _LONGEST = 50, 500  # milliseconds that one may take
_LAST = 2500  # milliseconds: the last is what has come of it
_TEXT_COLOURS = 16


def evolution_gif(
    reel: Reel,
    *,
    scale: ReelScale = "layer",
    side: int = SMALL_SIDE,
    most_bytes: int = MOST_BYTES,
) -> bytes:
    """Animate the kernel grid: see noise turn into edges and colours, and filters die.

    The frames are drawn as `kernel_grid` draws them, on one scale, with step and epoch below on a
    logarithmic line of time. They loop; the last one stays for a while. A GIF has 256 colours. Of
    the diverging map every second is kept: no weight is off by more than one level of 127. For RGB
    they are fitted to all frames together: those of a training are off by 2 to 5 levels of 255 in
    the root mean square, pure noise by up to 10; zero is exact, and grey keeps within 8 of grey.

    Args:
        reel: The layer through the training; a frame a shot.
        scale: See `Reel.half_ranges`.
        side: The kernels are enlarged, by a whole factor, to about this width and height.
        most_bytes: Never more than this: frames are left out, down to 12 of them, then the kernels
            enlarged less.

    Raises:
        ValueError: If a single frame of single pixels is more than that.
    """
    half_ranges = reel.half_ranges(scale)
    coloured = {shot.step: paint_kernels(shot, reel.cut, half_ranges) for shot in reel.shots}
    palette = _palette([painted.colours for painted in coloured.values()], reel.cut.is_rgb)
    numbering = numbers_of if reel.cut.is_rgb else _numbers_of_few
    numbered = {
        step: painted._replace(colours=numbering(painted.colours, palette))
        for step, painted in coloured.items()
    }
    zoom = None
    while True:
        steps = [shot.step for shot in reel.shots]
        stage = Stage(reel, steps, half_ranges, scale=scale, side=side, zoom=zoom)
        frames = _frames(stage, reel.shots, numbered, palette)
        content = encode_gif(frames, palette, durations(len(frames)))
        if len(content) <= most_bytes:
            return content
        share = 0.95 * most_bytes / len(content)
        count = len(frames)
        if count > _LEAST_SHOTS:
            reel = reel.thinned(max(_LEAST_SHOTS, int(count * share)))
        elif stage.zoom > 1:
            zoom = max(1, min(stage.zoom - 1, int(stage.zoom * share)))
        elif count > 1:
            reel = reel.thinned(max(1, int(count * share)))
        else:
            raise ValueError(
                f"{reel.layer}: expected kernels of which a frame fits in {most_bytes} bytes; one "
                f"of {'x'.join(map(str, reel.cut.shape[1:]))} takes {len(content)}"
            )


def durations(count: int) -> list[int]:
    """Milliseconds that each frame is seen: about six seconds in all, and the last one longer."""
    each = min(max(_MILLISECONDS // count, _SHORTEST), _LONGEST) // 10 * 10
    return [each] * (count - 1) + [_LAST]


def moving_pictures(stage: Stage, shots: Iterable[Shot], half_ranges: Tensor) -> Iterator[Canvas]:
    """Draw the frames of an animation one by one, in true colours: shape (H, W, 3), uint8 each."""
    stripes = np.array(NON_FINITE_COLOURS, np.uint8)
    for shot in shots:
        frame = stage.still.copy()
        stage.put(frame, paint_kernels(shot, stage.cut, half_ranges), stripes)
        frame[stage.clock] = mixed(stage.time(shot))
        yield frame


def _frames(
    stage: Stage, shots: Sequence[Shot], numbered: dict[int, Painted], palette: Canvas
) -> list[Canvas]:
    """Draw frames of numbers of colours."""
    stripes = numbers_of(np.array(NON_FINITE_COLOURS, np.uint8), palette)
    text = numbers_of(mixed(np.arange(256, dtype=np.uint8)), palette)
    still = _numbers_of_few(stage.still, palette)
    frames = []
    for shot in shots:
        frame = still.copy()
        stage.put(frame, numbered[shot.step], stripes)
        frame[stage.clock] = text[stage.time(shot)]
        frames.append(frame)
    return frames


def _numbers_of_few(picture: Canvas, palette: Canvas) -> Canvas:
    """The same as `numbers_of`, for a large picture of few colours."""
    packed = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    few, places = np.unique(packed, return_inverse=True)
    colours = np.stack([few >> 16, few >> 8 & 255, few & 255], -1).astype(np.uint8)
    return numbers_of(colours, palette)[places].reshape(picture.shape[:-1])


def _palette(coloured: Sequence[Canvas], is_rgb: bool) -> Canvas:
    """The colours of the text and the stripes, of zero, and what the kernels need."""
    text = mixed(np.linspace(0, 255, _TEXT_COLOURS).astype(np.uint8))
    around = np.concatenate([text, np.array(NON_FINITE_COLOURS, np.uint8)])
    if not is_rgb:
        # Levels 2, 4, ..., 254: with zero in the middle.
        levels = torch.arange(2, 256, 2, dtype=torch.uint8)
        return np.concatenate([around, diverging(levels[None])[:, 0].T.numpy()])
    greys = np.array([*range(8, 255, 8), 255], np.uint8)[:, None].repeat(3, 1)
    kernels = np.concatenate([colours.reshape(-1, 3) for colours in coloured])
    return fitted_palette(kernels, np.concatenate([around, greys]))
