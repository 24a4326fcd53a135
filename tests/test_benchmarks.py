"""What is measured beside what a user would do otherwise is really done."""

from pathlib import Path

import pytest
from forked import run_python

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.processes
def test_a_snapshot_is_measured_whole() -> None:
    """A benchmark of a snapshot that is lost would be fast; it is an error."""
    done = run_python("snapshot.py", "--rounds", "1", cwd=BENCHMARKS)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    kilobytes = {row[0].strip("| "): float(row[3].split()[0]) for row in rows}
    assert list(kilobytes) == ["blog post", "pasted snippet", "ours"]
    weights = 64 * 3 * 7 * 7 * 4 / 1e3
    assert kilobytes["ours"] > 2 * weights  # in the file, and in the event, beside the pictures
