"""``kill -9`` at a random moment loses at most one snapshot."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from kernelviz_callback import list_snapshots


def shown_by_tensorboard(log_dir: Path, tag: str, expected: int) -> list[int]:
    """Read the steps of a tag from a running TensorBoard, once it has loaded ``expected`` steps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--logdir", str(log_dir), "--port", str(port), "--samples_per_plugin", "images=1000"]
    board = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *options], stderr=subprocess.DEVNULL
    )
    query = urllib.parse.urlencode({"run": "0", "tag": tag, "sample": 0})
    url = f"http://127.0.0.1:{port}/data/plugin/images/images?{query}"
    steps: list[int] = []
    deadline = time.monotonic() + 90
    try:
        while len(steps) < expected and time.monotonic() < deadline:
            time.sleep(1)
            with contextlib.suppress(OSError), urllib.request.urlopen(url) as answer:
                steps = [image["step"] for image in json.load(answer)]
    finally:
        board.terminate()
        board.wait()
    return steps


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_training_killed_thirty_times_has_every_snapshot(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "killed.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "30", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("30 kills")
    log_dir = tmp_path / "run" / "0"
    assert sorted(p.name for p in log_dir.glob("kernelviz*")) == ["kernelviz"]
    assert not list((log_dir / "kernelviz").glob(".*.tmp"))
    steps = list(list_snapshots(log_dir / "kernelviz"))
    for tag in ("kernels/conv", "responses/conv"):
        assert shown_by_tensorboard(tmp_path / "run", tag, len(steps)) == steps
