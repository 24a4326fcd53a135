"""Memory is bounded for large layers; memory and threads do not grow with the snapshots."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from forked import run_python

PEAK = """
import json, math, sys
from dataclasses import replace
import torch
from kernelviz_callback import Geometry
from kernelviz_callback.training.renderer import Renderer
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.health_monitor import HealthMonitor
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.job_queue import JobQueue

def resident(peak):
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) * 1024

filters, channels, groups, kernel, size, scale = json.loads(sys.argv[1])
weights = torch.randn(filters, channels, kernel, kernel)
geometry = Geometry("Conv2d", (2, 2), (3, 3), (1, 1), groups)

def draw(probe, weights, geometry):
    snapshot = Snapshot(0, 0, 0.0, {"conv": weights}, {"conv": geometry})
    failures = Failures()
    snapshot = replace(snapshot, health=HealthMonitor(probe).observe(snapshot, failures))
    renderer = Renderer(probe, response="channels", scale=scale, run_scales={})
    assert len(renderer.draw(snapshot, failures)) == 2
    assert not failures.found, failures.found

small = Geometry("Conv2d", (2, 2), (3, 3), (1, 1), 1)
probe = Probe(torch.rand(channels * groups, size, size), "tensor")
worker = JobQueue("test", most_jobs=1, most_bytes=1, on_error=lambda e: print(repr(e)))
worker.submit(lambda: draw(Probe(torch.rand(3, 64, 64), "tensor"), torch.randn(16, 3, 7, 7), small))
worker.drain(patience=math.inf)
before = resident(False)
open("/proc/self/clear_refs", "w").write("5")  # reset the peak
worker.submit(lambda: draw(probe, weights, geometry))
worker.close(patience=math.inf)
print(resident(True) - before)
"""


SAVING = """
import sys
import torch
from kernelviz_callback import Geometry
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.snapshots.format import save_snapshot

def resident(peak):
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) * 1024

geometry = Geometry("Conv2d", (1, 1), (1, 1), (1, 1), 1)
weights = torch.randn(2048, 512, 3, 3)
save_snapshot(Snapshot(0, 0, 0.0, {"conv": weights[:4]}, {"conv": geometry}), sys.argv[1])
before = resident(False)
open("/proc/self/clear_refs", "w").write("5")
save_snapshot(Snapshot(1, 0, 0.0, {"conv": weights}, {"conv": geometry}), sys.argv[1])
print(resident(True) - before)
"""


# glibc returns freed blocks that are larger than this to the system at once. By default it raises
# the limit during the run, which makes the measurement depend on the timing of the threads.
IN_USE = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}


def peak(case: tuple[object, ...], environment: Mapping[str, str] = IN_USE) -> int:
    """Return the peak memory of one snapshot in bytes.

    Args:
        case: Number of filters, channels and groups, side of the kernels, side of the probe, scale.
        environment: Environment variables of the process.
    """
    done = run_python("-c", PEAK, json.dumps(case), started_with=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.splitlines()[-1])


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "case",
    [
        (512, 3, 1, 7, 1024, "filter"),
        (512, 3, 1, 7, 1024, "layer"),
        (272, 16, 1, 7, 256, "filter"),
        (512, 1, 512, 7, 128, "filter"),
        (64, 3, 1, 7, 1024, "filter"),
        pytest.param((2048, 3, 1, 7, 1024, "filter"), marks=pytest.mark.long),
        pytest.param((2048, 3, 1, 7, 1024, "layer"), marks=pytest.mark.long),
        pytest.param((1024, 16, 1, 7, 256, "filter"), marks=pytest.mark.long),
        pytest.param((2048, 1, 2048, 7, 128, "filter"), marks=pytest.mark.long),
        pytest.param((4096, 3, 1, 7, 224, "filter"), marks=pytest.mark.long),
    ],
    ids=lambda case: "-".join(map(str, case)),
)
def test_the_memory_of_a_snapshot_is_bounded(case: tuple[object, ...]) -> None:
    """The snapshot is examined, drawn and encoded."""
    assert 0 < peak(case) <= 64 * 2**20


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("filters", "environment", "most"),
    [
        (512, IN_USE, 96),
        pytest.param(2048, IN_USE, 96, marks=pytest.mark.long),
        pytest.param(2048, {}, 192, marks=pytest.mark.long),  # the allocator keeps freed memory
    ],
    ids=["512", "2048", "2048-as-allocated"],
)
def test_the_memory_of_a_wide_layer_is_bounded(
    filters: int, environment: dict[str, str], most: int
) -> None:
    """The layer has 512 channels: the probe alone takes 98 MiB, 2,048 filters 38 MiB."""
    assert 0 < peak((filters, 512, 1, 3, 224, "filter"), environment) <= most * 2**20


@pytest.mark.newest
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_saving_takes_at_most_two_and_a_half_times_the_memory_of_the_weights(
    tmp_path: Path,
) -> None:
    weights = 2048 * 512 * 3 * 3 * 4
    done = run_python("-c", SAVING, str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights < int(done.stdout) <= 2.5 * weights


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="counts the descriptors in /proc")
@pytest.mark.parametrize("count", [200, pytest.param(3000, marks=pytest.mark.long)])
def test_memory_threads_and_descriptors_do_not_grow_with_the_snapshots(count: int) -> None:
    """A short form of ``benchmarks/growth.py``, which takes 10,000 snapshots."""
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    looks = f"at=(100, {count})"
    code = (
        "import json, growth; from kernelviz_callback.training import drawing_process as drawing\n"
        "drawing.START_COST = drawing.START_COST_ON_MANY = 0.0  # before the first look\n"
        f"print(json.dumps(growth.many_snapshots({count}, {looks})))"
    )
    done = run_python("-c", code, cwd=benchmarks)
    assert done.returncode == 0, done.stderr[-2000:]
    warm, late = json.loads(done.stdout.splitlines()[-1]).values()
    assert late[0] - warm[0] < 10, "MiB of resident memory"
    assert late[1:] == warm[1:], "threads and descriptors"
