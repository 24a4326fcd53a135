"""Encode MP4 files that browsers and office programs can play."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from kernelviz_callback.drawing.animation.caption import Canvas
from kernelviz_callback.drawing.caption_layout import BACKGROUND

_CODEC = "libx264"
_OPTIONS = {"crf": "14", "preset": "veryfast", "tune": "animation"}  # without visible loss
_BT709 = 1  # primaries, transfer and matrix, as numbered in ITU-T H.273
_LIMITED = 1  # colour range 16 to 235


def check_encoder() -> None:
    """Raise a `ModuleNotFoundError` if there is no encoder. It names the extra to install."""
    try:
        import av  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'an MP4 file needs PyAV: pip install "kernelviz-callback[video]"; '
            "a .gif file does not need it"
        ) from error


def save_mp4(
    path: Path, frames: Iterable[Canvas], *, rate: int, hold: int, even: tuple[int, int]
) -> None:
    """Write frames as H.264 in 4:2:0, which every player supports.

    In 4:2:0, each block of 2 x 2 pixels has one chroma value; its pixels differ in brightness only.
    Two weights never lie in the same block if the kernels begin at an even row and column and are
    enlarged by an even factor.

    Args:
        path: Path of the file.
        frames: One or more frames of shape (H, W, 3), uint8.
        rate: Frames per second.
        hold: How many times the last frame is repeated.
        even: The row and the column at which the first kernel begins. If one of them is odd, a
            margin of one pixel is added, so that it becomes even.

    Raises:
        ModuleNotFoundError: If there is no encoder, see `check_encoder`.
        OSError: If the file cannot be written.
    """
    check_encoder()
    import av

    pictures = _repeat_last((_make_even(frame, even) for frame in frames), hold)
    first = next(pictures)
    path.write_bytes(b"")  # an OSError from Python names the file, one from PyAV does not
    with av.open(str(path), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream(_CODEC, rate=rate, options=_OPTIONS)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        # Without these declarations, each player would choose its own defaults.
        codec = stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED
        for picture in chain([first], pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            file.mux(
                stream.encode(
                    frame.reformat(format="yuv420p", dst_colorspace="ITU709", interpolation="AREA")
                )
            )
        file.mux(stream.encode())


def _repeat_last(pictures: Iterable[Canvas], hold: int) -> Iterator[Canvas]:
    last = None
    for last in pictures:
        yield last
    if last is not None:
        for _ in range(hold):
            yield last


def _make_even(pixels: Canvas, even: tuple[int, int]) -> Canvas:
    height, width = pixels.shape[:2]
    top, left = even[0] % 2, even[1] % 2
    size = height + top + (height + top) % 2, width + left + (width + left) % 2
    picture = np.full((*size, 3), BACKGROUND, np.uint8)
    picture[top : top + height, left : left + width] = pixels
    return picture
