"""The video as PyAV and as a browser play it."""

import base64
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from filter_sequences import drawn, sequence_of
from PIL import Image

from kernelviz_callback.drawing.animation.animate import moving_pictures
from kernelviz_callback.drawing.animation.frame import FrameRenderer
from kernelviz_callback.drawing.animation.video import save_mp4

RATE, HOLD = 10, 20


def filmed(path: Path, channels: int, steps: int = 6) -> tuple[list[np.ndarray], FrameRenderer]:
    weights = {step: drawn(9, channels, 5, 5, seed=step) for step in range(steps)}
    sequence = sequence_of(weights)
    half_ranges = sequence.half_ranges()
    renderer = FrameRenderer(sequence, list(weights), half_ranges, scale="layer", is_even=True)
    frames = list(moving_pictures(renderer, sequence.frames, half_ranges))
    even = renderer.layout.top, renderer.layout.left
    save_mp4(path, iter(frames), rate=RATE, hold=HOLD, even=even)
    return frames, renderer


def played(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [_colours(frame.to_ndarray()) for frame in file.decode(video=0)]


def _colours(planes: np.ndarray) -> np.ndarray:
    """Convert 4:2:0 to RGB by the formulas of BT.709; FFmpeg's own conversion rounds coarsely."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    halves = planes[height:].reshape(2, height // 2, width // 2)
    blue, red = halves.repeat(2, axis=1).repeat(2, axis=2) / 224 - 128 / 224
    luma = (planes[:height] - 16.0) / 219
    rgb = luma + 1.5748 * red, luma - 0.1873 * blue - 0.4681 * red, luma + 1.8556 * blue
    return np.rint(np.stack(rgb, axis=-1).clip(0, 1) * 255).astype(np.uint8)


def error_of(seen: np.ndarray, frame: np.ndarray, renderer: FrameRenderer) -> np.ndarray:
    """The error of the kernels, in levels of 255."""
    top, left = renderer.layout.top % 2, renderer.layout.left % 2
    seen = seen[top : top + frame.shape[0], left : left + frame.shape[1]]
    rows = slice(renderer.layout.top, renderer.layout.height)
    columns = slice(renderer.layout.left, renderer.layout.width)
    return np.abs(seen[rows, columns].astype(int) - frame[rows, columns].astype(int))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_frames_are_in_the_video_without_visible_loss(tmp_path: Path, channels: int) -> None:
    frames, renderer = filmed(tmp_path / "v.mp4", channels)
    seen = played(tmp_path / "v.mp4")
    assert len(seen) == len(frames) + HOLD
    for number, picture in enumerate(seen):
        error = error_of(picture, frames[min(number, len(frames) - 1)], renderer)
        assert error.mean() < 4
        assert np.percentile(error, 99) < 16


def test_the_video_is_h264_in_420_and_declares_its_colours(tmp_path: Path) -> None:
    filmed(tmp_path / "v.mp4", 3)
    with av.open(str(tmp_path / "v.mp4")) as file:
        stream = file.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.colorspace, codec.color_range) == (1, 1)
        assert codec.width % 2 == codec.height % 2 == 0
        assert stream.average_rate == RATE
    content = (tmp_path / "v.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), (
        "the index comes first, so that it plays while it loads"
    )


def test_a_single_frame_is_a_video(tmp_path: Path) -> None:
    filmed(tmp_path / "v.mp4", 3, steps=1)
    assert len(played(tmp_path / "v.mp4")) == 1 + HOLD


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(OSError, match="missing"):
        save_mp4(tmp_path / "missing" / "v.mp4", [frame], rate=4, hold=0, even=(0, 0))


@pytest.mark.browser
def test_a_browser_plays_the_video(browser: Any, tmp_path: Path) -> None:
    frames, renderer = filmed(tmp_path / "v.mp4", 3)
    address = base64.b64encode((tmp_path / "v.mp4").read_bytes()).decode()
    page = browser.new_page()
    page.set_content("<video muted></video>")
    shown: Any = page.evaluate(_SHOW_THE_END, f"data:video/mp4;base64,{address}")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown))).convert("RGB"))
    error = error_of(picture, frames[-1], renderer)
    assert error.mean() < 4
    assert torch.tensor(error).float().quantile(0.99) < 16


_SHOW_THE_END = """async (address) => {
  const video = document.querySelector("video");
  const heard = (name) => new Promise((resolve, reject) => {
    video.addEventListener(name, resolve, {once: true});
    video.addEventListener("error", () => reject(video.error.message), {once: true});
  });
  video.src = address;
  await heard("loadeddata");
  await video.play();
  video.pause();
  const sought = heard("seeked");
  const painted = new Promise((resolve) => {
    const look = (_, frame) =>
      frame.mediaTime > video.duration - 0.2 ? resolve() : video.requestVideoFrameCallback(look);
    video.requestVideoFrameCallback(look);
  });
  video.currentTime = video.duration - 0.05;
  await sought;
  await painted;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return canvas.toDataURL().split(",")[1];
}"""
