"""Each cause of failures gives one warning, and a message when it is over."""

import errno
import os
import re

import pytest
from conftest import warned

from kernelviz_callback.training.failures import FailureReporter, Failures


def failed(*attempts: tuple[str, Exception]) -> Failures:
    failures = Failures()
    for attempt, error in attempts:
        with failures.survive(attempt, f"the result of {attempt} is lost"):
            raise error
    return failures


def report(*snapshots: Failures) -> None:
    reporter = FailureReporter()
    for step, failures in enumerate(snapshots, 1):
        reporter.report(failures, step)


def os_error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def test_a_failure_is_over_only_after_a_success(caplog: pytest.LogCaptureFixture) -> None:
    away, untried, succeeded = failed(("write", OSError("away"))), Failures(), Failures()
    with succeeded.survive("write", "it is lost"):
        pass
    with pytest.warns(UserWarning, match="at step 1 could not write: OSError: away") as caught:
        report(away, untried, away, succeeded, away, succeeded)
    assert len(warned(caught)) == 1
    said = [r.getMessage() for r in caplog.records if "could again" in r.getMessage()]
    assert [int(re.search(r"step (\d+)", line)[1]) for line in said] == [4, 6]


def test_a_full_disk_gives_one_warning_for_files_pictures_and_films() -> None:
    snapshot = ("write to run", os_error(errno.ENOSPC, "step-3"))
    pictures = ("log to SummaryWriter", os_error(errno.ENOSPC, "events"))
    films = ("log films to SummaryWriter", os_error(errno.ENOSPC, "events"))
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        report(failed(snapshot, pictures), failed(films))
    assert warned(caught) == [
        "kernelviz: at step 1 could not write to run and log to SummaryWriter: OSError: [Errno 28] "
        "No space left on device: 'step-3'. Training goes on. Snapshots and pictures that cannot "
        "be written to that disk are lost; what was written is kept."
    ]


def test_other_causes_are_still_reported() -> None:
    full, read_only = os_error(errno.ENOSPC, "step-1"), os_error(errno.EROFS, "step-2")
    away, still_away = ConnectionError("away"), ConnectionError("still away")
    attempts = [("write to run", full), ("write to run", read_only), ("write to run", away)]
    attempts += [("log to Far", away), ("log to Far", still_away)]
    with pytest.warns(UserWarning, match="could not") as caught:
        report(*map(failed, attempts))
    assert [int(re.search(r"step (\d)", text)[1]) for text in warned(caught)] == [1, 2, 3, 4]
    assert "The result of log to Far is lost" in warned(caught)[-1]


def test_attempts_that_fail_for_the_same_reason_share_a_sentence() -> None:
    error = RuntimeError("the loggers are mute")
    with pytest.warns(UserWarning, match="could not reach A and reach B: RuntimeError") as caught:
        report(failed(("reach A", error), ("reach B", error)))
    assert len(warned(caught)) == 1
    assert warned(caught)[0].endswith("of reach A is lost; the result of reach B is lost.")
