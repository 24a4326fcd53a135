"""The benchmarks measure complete work."""

from pathlib import Path

import pytest
from forked import run_python

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.processes
def test_the_snapshot_benchmark_measures_complete_snapshots() -> None:
    """A failed snapshot would seem to be fast, so it must be an error."""
    done = run_python("snapshot.py", "--rounds", "1", cwd=BENCHMARKS)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    kilobytes = {row[0].strip("| "): float(row[3].split()[0]) for row in rows}
    assert list(kilobytes) == ["blog post", "pasted snippet", "ours"]
    weights = 64 * 3 * 7 * 7 * 4 / 1e3
    assert kilobytes["ours"] > 2 * weights  # once in the file, once in the event, and the pictures


@pytest.mark.processes
@pytest.mark.parametrize(
    ("contender", "measured"),
    [("none", 2), ("ours", 2), ("ours, at first", 2), ("pasted snippet", 1)],
)
def test_the_true_cost_is_measured_after_every_snapshot(contender: str, measured: int) -> None:
    code = (
        f"import true_cost as t; plan = t.Plan(6, first={measured - 1}, measured={measured})\n"
        f"with t.drawing_in({contender!r}): found = t.loop_of_calls({contender!r}, plan)\n"
        "print(found.after.shape, found.later.shape, found.cpu.shape, found.closing > 0)\n"
        "print((found.after > 0).all() and (found.later > 0).all(), found.memory > 0)\n"
        "print(t.row_of([found], [found]))"
    )
    done = run_python("-c", code, cwd=BENCHMARKS)
    assert done.returncode == 0, done.stderr
    shapes, found, row = done.stdout.splitlines()[-3:]
    assert shapes == f"({measured}, 6) ({measured}, 6) ({measured},) True"
    assert found == f"True {contender == 'ours'}", "only this one draws in another process"
    cells = row.split(" | ")
    assert len(cells) == 7
    assert cells[-1] == "0.0 ms", "the closing, less its own"
