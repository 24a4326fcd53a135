"""Messages: where warnings point, and how to be quiet."""

import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import run_python

from kernelviz_callback.console import say, warn


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    log = logging.getLogger("kernelviz_callback")
    before = log.level
    yield log
    log.setLevel(before)


def test_a_warning_points_at_the_line_of_the_user() -> None:
    library = {"__name__": "lightning.pytorch.trainer.call", "warn": warn}
    exec(compile("def hook(): warn('attention')", "call.py", "exec"), library)
    with pytest.warns(UserWarning, match="kernelviz: attention") as caught:
        library["hook"]()
    [warning] = caught
    assert warning.filename == __file__
    assert "library[" in Path(__file__).read_text().splitlines()[warning.lineno - 1]


def test_a_warning_of_a_background_thread_points_at_no_line() -> None:
    thread = threading.Thread(target=warn, args=("attention",))
    with pytest.warns(UserWarning, match="kernelviz: attention") as caught:
        _run(thread)
    [warning] = caught
    assert not Path(warning.filename).exists()
    assert "kernelviz" not in warning.filename


def _run(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("level", "shown"),
    [(logging.INFO, ["said", "warned"]), (logging.WARNING, ["warned"]), (logging.ERROR, [])],
)
def test_the_level_of_the_logger_decides_what_is_shown(
    level: int, shown: list[str], log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    log.setLevel(level)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        say("said")
        warn("warned")
    texts = [r.getMessage() for r in caplog.records] + [str(w.message) for w in caught]
    assert texts == [f"kernelviz: {text}" for text in shown]


def test_a_level_that_was_set_before_the_import_stays() -> None:
    code = (
        "import logging; logging.getLogger('kernelviz_callback').setLevel('ERROR')\n"
        "import sys\n"
        "for name in [n for n in sys.modules if n == 'kernelviz_callback.console']: "
        "del sys.modules[name]\n"
        "from kernelviz_callback.console import say, warn\n"
        "say('said'); warn('warned')"
    )
    done = run_python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
