"""``kill -9`` at a random moment loses at most one snapshot."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
from processes import run

from kernelviz_callback import list_snapshots


def shown_by_tensorboard(log_dir: Path, tags: Sequence[str], expected: int) -> list[list[int]]:
    """Read the steps of each tag from a running TensorBoard, once it has ``expected`` steps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--logdir", str(log_dir), "--port", str(port), "--samples_per_plugin", "images=1000"]
    board = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *options], stderr=subprocess.DEVNULL
    )
    found: list[list[int]] = []
    try:
        for tag in tags:
            query = urllib.parse.urlencode({"run": "0", "tag": tag, "sample": 0})
            url = f"http://127.0.0.1:{port}/data/plugin/images/images?{query}"
            steps: list[int] = []
            deadline = time.monotonic() + 90
            while len(steps) < expected and time.monotonic() < deadline:
                time.sleep(0.5)
                with contextlib.suppress(OSError), urllib.request.urlopen(url) as answer:
                    steps = [image["step"] for image in json.load(answer)]
            found.append(steps)
    finally:
        board.terminate()
        board.wait()
    return found


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize(
    ("kills", "last_step"), [(3, 60), pytest.param(30, 400, marks=pytest.mark.long)]
)
def test_a_training_killed_often_has_every_snapshot(
    tmp_path: Path, kills: int, last_step: int
) -> None:
    output = run("killed.py", str(tmp_path), str(kills), "1", str(last_step))
    assert output.startswith(f"{kills} kills")
    log_dir = tmp_path / "run" / "0"
    assert sorted(p.name for p in log_dir.glob("kernelviz*")) == ["kernelviz"]
    assert not list((log_dir / "kernelviz").glob(".*.tmp"))
    steps = list(list_snapshots(log_dir / "kernelviz"))
    tags = ("kernels/conv", "responses/conv")
    assert shown_by_tensorboard(tmp_path / "run", tags, len(steps)) == [steps, steps]
