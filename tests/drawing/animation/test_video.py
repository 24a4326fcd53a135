"""The video: what a player shows, and that a browser is one."""

import base64
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from reels import drawn, gathered

from kernelviz_callback.drawing.animation.animate import moving_pictures
from kernelviz_callback.drawing.animation.frame import Stage
from kernelviz_callback.drawing.animation.video import save_mp4

RATE, HOLD = 10, 20


def filmed(path: Path, channels: int, steps: int = 6) -> tuple[list[np.ndarray], Stage]:
    weights = {step: drawn(9, channels, 5, 5, seed=step) for step in range(steps)}
    reel = gathered(weights)
    half_ranges = reel.half_ranges()
    stage = Stage(reel, list(weights), half_ranges, scale="layer", is_even=True)
    frames = list(moving_pictures(stage, reel.shots, half_ranges))
    even = stage.layout.top, stage.layout.left
    save_mp4(path, iter(frames), rate=RATE, hold=HOLD, even=even)
    return frames, stage


def played(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [_colours(frame.to_ndarray()) for frame in file.decode(video=0)]


def _colours(planes: np.ndarray) -> np.ndarray:
    """Those of 4:2:0 by the formulas of BT.709, which FFmpeg's conversion rounds, once coarsely."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    halves = planes[height:].reshape(2, height // 2, width // 2)
    blue, red = halves.repeat(2, axis=1).repeat(2, axis=2) / 224 - 128 / 224
    luma = (planes[:height] - 16.0) / 219
    rgb = luma + 1.5748 * red, luma - 0.1873 * blue - 0.4681 * red, luma + 1.8556 * blue
    return np.rint(np.stack(rgb, axis=-1).clip(0, 1) * 255).astype(np.uint8)


def error_of(seen: np.ndarray, frame: np.ndarray, stage: Stage) -> np.ndarray:
    """Of the kernels, in levels of 255."""
    top, left = stage.layout.top % 2, stage.layout.left % 2
    seen = seen[top : top + frame.shape[0], left : left + frame.shape[1]]
    rows = slice(stage.layout.top, stage.layout.height)
    columns = slice(stage.layout.left, stage.layout.width)
    return np.abs(seen[rows, columns].astype(int) - frame[rows, columns].astype(int))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_frames_are_there_and_no_loss_can_be_seen(tmp_path: Path, channels: int) -> None:
    frames, stage = filmed(tmp_path / "v.mp4", channels)
    seen = played(tmp_path / "v.mp4")
    assert len(seen) == len(frames) + HOLD
    for number, picture in enumerate(seen):
        error = error_of(picture, frames[min(number, len(frames) - 1)], stage)
        assert error.mean() < 4
        assert np.percentile(error, 99) < 16


def test_it_is_what_every_player_plays_and_says_its_colours(tmp_path: Path) -> None:
    filmed(tmp_path / "v.mp4", 3)
    with av.open(str(tmp_path / "v.mp4")) as file:
        stream = file.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.colorspace, codec.color_range) == (1, 1)
        assert codec.width % 2 == codec.height % 2 == 0
        assert stream.average_rate == RATE
    content = (tmp_path / "v.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "it plays while it loads"


def test_a_single_frame_is_a_video(tmp_path: Path) -> None:
    filmed(tmp_path / "v.mp4", 3, steps=1)
    assert len(played(tmp_path / "v.mp4")) == 1 + HOLD


def test_a_folder_that_is_missing_is_an_os_error(tmp_path: Path) -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(OSError, match="missing"):
        save_mp4(tmp_path / "missing" / "v.mp4", [frame], rate=4, hold=0, even=(0, 0))


@pytest.mark.browser
def test_a_browser_plays_it(browser: Any, tmp_path: Path) -> None:
    frames, stage = filmed(tmp_path / "v.mp4", 3)
    address = base64.b64encode((tmp_path / "v.mp4").read_bytes()).decode()
    page = browser.new_page()
    page.set_content("<video muted></video>")
    shown: Any = page.evaluate(_SHOW_THE_END, f"data:video/mp4;base64,{address}")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown))).convert("RGB"))
    error = error_of(picture, frames[-1], stage)
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
