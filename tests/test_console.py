"""Messages: where warnings point, and how to be quiet."""

import logging
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from forked import run_python

from kernelviz_callback.commands.output_streams import plain_warnings
from kernelviz_callback.console import say, thread_of_user, warn


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


def test_a_warning_of_a_background_thread_points_at_the_line_that_made_the_thread() -> None:
    thread = thread_of_user(partial(warn, "attention"), "example")
    with pytest.warns(UserWarning, match="kernelviz: attention") as caught:
        _run(thread)
    [warning] = caught
    assert warning.filename == __file__
    assert "thread_of_user(" in Path(__file__).read_text().splitlines()[warning.lineno - 1]


def test_a_warning_that_belongs_to_no_line_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    _run(threading.Thread(target=warn, args=("attention",)))
    [record] = caplog.records
    assert (record.getMessage(), record.levelname) == ("kernelviz: attention", "WARNING")


def test_no_warning_of_a_training_begins_with_sys(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, torch\n"
        "from kernelviz_callback import KernelWatcher\n"
        "conv = torch.nn.Conv2d(3, 4, 3)\n"
        "torch.nn.init.constant_(conv.weight, torch.nan)\n"
        "with KernelWatcher(torch.nn.Sequential(conv), sys.argv[1]) as watcher:\n"
        "    watcher.snapshot(0)\n"
    )
    done = run_python(str(program), str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "sys:1" not in done.stderr
    assert f"{program}:6: UserWarning: kernelviz: 0: 4 of 4 filters are non-finite" in done.stderr


def test_a_command_prints_our_warnings_without_a_place() -> None:
    def printed(text: str) -> str:
        return warnings.formatwarning(text, UserWarning, "a.py", 7, line="")

    with plain_warnings():
        assert printed("kernelviz: attention") == "kernelviz: attention\n"
        assert printed("of another package").startswith("a.py:7: UserWarning: of another")
    assert printed("kernelviz: attention").startswith("a.py:7: ")


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
