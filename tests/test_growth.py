"""What does not grow: memory with the size of a layer, memory and threads with the snapshots."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PEAK = """
import json, sys
import torch
from kernelviz_callback import Geometry
from kernelviz_callback.mishaps import Mishaps
from kernelviz_callback.monitor import Monitor
from kernelviz_callback.probe import Probe
from kernelviz_callback.snapshot import Snapshot
from kernelviz_callback.snapshot_pictures import kernel_picture, response_picture
from kernelviz_callback.worker import Worker

def resident(peak):
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) * 1024

filters, channels, groups, size, scale = json.loads(sys.argv[1])
weights = torch.randn(filters, channels, 7, 7)
geometry = Geometry("Conv2d", (2, 2), (3, 3), (1, 1), groups)

def draw(probe, weights, geometry):
    snapshot = Snapshot(0, 0, 0.0, {"conv": weights}, {"conv": geometry})
    health = Monitor(probe).observe(snapshot, Mishaps())["conv"]
    kernel_picture(weights, layer="conv", groups=geometry.groups, scale=scale, health=health)
    response_picture(weights, geometry, probe, layer="conv", scale=scale)

small = Geometry("Conv2d", (2, 2), (3, 3), (1, 1), 1)
probe = Probe(torch.rand(channels * groups, size, size), "tensor")
worker = Worker("test", most_jobs=1, most_bytes=1, on_error=lambda e: print(repr(e)))
worker.submit(lambda: draw(Probe(torch.rand(3, 64, 64), "tensor"), torch.randn(16, 3, 7, 7), small))
worker.drain()
before = resident(False)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
worker.submit(lambda: draw(probe, weights, geometry))
worker.close()
print(resident(True) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("filters", "channels", "groups", "size", "scale"),
    [
        (2048, 3, 1, 1024, "filter"),
        (2048, 3, 1, 1024, "layer"),
        (2048, 16, 1, 256, "filter"),
        (2048, 1, 2048, 128, "filter"),
        (64, 3, 1, 1024, "filter"),
        (8192, 3, 1, 224, "filter"),
    ],
)
def test_the_memory_of_a_snapshot_is_bounded(filters, channels, groups, size, scale) -> None:
    case = json.dumps([filters, channels, groups, size, scale])
    done = subprocess.run(
        [sys.executable, "-c", PEAK, case], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    peak = int(done.stdout.splitlines()[-1])
    print(case, peak / 2**20)
    assert 0 < peak <= 64 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="counts the descriptors in /proc")
def test_many_snapshots_leave_memory_threads_and_descriptors_as_they_were() -> None:
    """The short form of ``benchmarks/growth.py``, which takes 10,000."""
    benchmarks = Path(__file__).parent.parent / "benchmarks"
    code = "import json, growth; print(json.dumps(growth.many_snapshots(600, at=(200, 600))))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=benchmarks
    )
    assert done.returncode == 0, done.stderr[-2000:]
    warm, late = json.loads(done.stdout.splitlines()[-1]).values()
    assert late[0] - warm[0] < 10, "MiB of resident memory"
    assert late[1:] == warm[1:], "threads and descriptors"
