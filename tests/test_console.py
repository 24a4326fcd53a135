"""Messages: where warnings point, and how to be quiet."""

import logging
import os
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


# Undo what an import of the package has done in this process, then import the module again.
_FIRST_IMPORT = """
import logging, sys, warnings
log = logging.getLogger("kernelviz_callback")
log.handlers.clear()
log.setLevel(logging.NOTSET)
log.propagate = True
logging.getLogger().handlers.clear()
sys.modules.pop("kernelviz_callback.console", None)
"""


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("", "", "kernelviz: said\n"),
        ("", "logging.basicConfig(format='root: %(message)s')", "kernelviz: said\n"),
        ("logging.basicConfig(format='root: %(message)s')", "", "root: kernelviz: said\n"),
    ],
)
def test_a_message_is_shown_once(before: str, after: str, shown: str) -> None:
    """The program of the user sets up the logging never, late, or early."""
    code = f"{_FIRST_IMPORT}{before}\nfrom kernelviz_callback.console import say\n{after}\n"
    done = run_python("-c", code + "say('said')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", shown)


def test_a_warning_that_is_turned_into_an_error_is_logged() -> None:
    code = (
        f"{_FIRST_IMPORT}from kernelviz_callback.console import warn\n"
        "warnings.simplefilter('error')\nwarn('attention')"
    )
    done = run_python("-c", code)
    assert (done.returncode, done.stderr) == (0, "kernelviz: attention\n")


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_only_the_first_process_of_a_group_talks(tmp_path: Path) -> None:
    code = f"""{_FIRST_IMPORT}
import os
from torch import distributed
from kernelviz_callback.console import process_rank, say, say_everywhere, warn
child = os.fork()
store = "file://" + sys.argv[1]
distributed.init_process_group("gloo", init_method=store, rank=0 if child else 1, world_size=2)
warnings.simplefilter("always")
say("said")
warn("warned")
say_everywhere("rank %d of %d" % process_rank())
distributed.barrier()
distributed.destroy_process_group()
if child:
    os.waitpid(child, 0)
"""
    done = run_python("-c", code, str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    counts = {text: done.stderr.count(f"kernelviz: {text}") for text in ("said", "warned")}
    assert counts == {"said": 1, "warned": 1}
    for rank in (0, 1):
        assert done.stderr.count(f"kernelviz: rank {rank} of 2") == 1
