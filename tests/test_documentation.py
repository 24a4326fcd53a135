"""The documentation: the site is built, and the commands and programs of its pages run."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import TinyNet

import kernelviz_callback
from kernelviz_callback import EncodedImage, KernelVizCallback
from kernelviz_callback.cli import parser
from kernelviz_callback.training.loggers.registry import destination_of

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


class MyLogger:
    """A logger of the reader's own, for the page about loggers."""

    uploaded: ClassVar[dict[str, bytes]] = {}

    def upload(self, name: str, content: bytes) -> None:
        self.uploaded[name] = content


@pytest.fixture
def names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_loggers: None
) -> Iterator[dict[str, Any]]:
    """What the pages take for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    torch.manual_seed(0)
    yield {"model": TinyNet(), "MyLogger": MyLogger}
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()


@pytest.fixture
def trained(fit: Any, tmp_path: Path) -> None:
    """A finished training in the folder that the pages name."""
    fit(KernelVizCallback(), logger=True)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_the_python_blocks_of_a_page_run_one_after_the_other(
    page: Path, names: dict[str, Any], trained: None
) -> None:
    for block in blocks(page, "python"):
        exec(compile(block, name_of(page), "exec"), names)


def test_the_logger_of_the_page_about_loggers_uploads_pictures(names: dict[str, Any]) -> None:
    *_, block = blocks(ROOT / "docs" / "how-to" / "loggers.md", "python")
    exec(compile(block, "loggers.md", "exec"), names)
    destination = destination_of(MyLogger())
    assert destination is not None
    destination.log({"kernels/conv1": EncodedImage(b"a", 1, 1, ".png")}, 7, {}, [])
    assert MyLogger.uploaded == {"kernels/conv1-7.png": b"a"}


def test_the_program_of_the_page_about_files_draws_every_snapshot(
    names: dict[str, Any], trained: None, tmp_path: Path
) -> None:
    (block,) = blocks(ROOT / "docs" / "file-format.md", "python")
    exec(compile(block, "file-format.md", "exec"), names)
    found = {path.name for path in tmp_path.glob("*.png")}
    assert found == {f"conv-{step:06d}.png" for step in (0, 1, 2, 4, 8)}


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "bash")], ids=name_of)
def test_the_commands_of_a_page_are_valid(page: Path) -> None:
    for line in "".join(blocks(page, "bash")).splitlines():
        command, *arguments = shlex.split(line, comments=True)
        if command == "kernelviz":
            parser().parse_args(arguments)
        elif command == "make":
            assert set(arguments) <= set(TARGETS)
        elif command == "python":
            assert (ROOT / arguments[0]).exists()
        else:
            assert line in (
                "pip install .",
                "tensorboard --logdir lightning_logs",
            ) or line.startswith("pip install .  ")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_source_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|pyi|js|ipynb|toml))`", page.read_text())
    missing = {
        name
        for name in named
        if not (ROOT / name).exists() and not (ROOT / "kernelviz_callback" / name).exists()
    }
    assert not missing


def test_the_reference_has_every_public_name() -> None:
    written = re.findall(
        r"^::: kernelviz_callback\.\S*?(\w+)$",
        (ROOT / "docs" / "reference.md").read_text(),
        re.MULTILINE,
    )
    assert sorted(written) == sorted(kernelviz_callback.__all__)


@pytest.mark.newest  # needs the newest versions of the tools that build it
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    start = (tmp_path / "index.html").read_text()
    assert "Quick start" in start
    fetched = re.findall(
        r'<(?:script|img|link rel="stylesheet")[^>]* (?:src|href)="(https?:[^"]+)"', start
    )
    assert fetched == [], "the page must not need a network"
    assert "KernelVizCallback" in (tmp_path / "reference" / "index.html").read_text()
