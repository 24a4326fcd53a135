"""What the Makefile installs, and what it says before. Programs that install are replaced."""

import os
import subprocess
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def program(path: Path, script: str) -> None:
    """Write a program for the shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def replaced(tmp_path: Path) -> Path:
    """Make a folder with a Python whose environments have programs that only print."""
    environment = tmp_path / "environment"
    program(environment / "bin" / "pip", 'echo "constraint: $PIP_CONSTRAINT" >> "$LOG"')
    program(environment / "bin" / "kernelviz", "echo trained")
    for version in ((3, 11), (3, 12)):
        check = f"import sys; sys.version_info = {version}"
        program(
            tmp_path / "python{}.{}".format(*version),
            f'if [ "$1" = -m ]; then exit 0; fi; exec python3 -c "{check}; $(echo "$2")"',
        )
    return tmp_path


def make(
    *arguments: str, folder: Path, path: str | None = None
) -> subprocess.CompletedProcess[str]:
    log = folder / "log"
    log.touch()
    variables = {**os.environ, "LOG": str(log)}
    variables.pop("PIP_CONSTRAINT", None)
    for outer in ("PINNED", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS"):  # of `make test PINNED=1`
        variables.pop(outer, None)
    if path is not None:
        variables["PATH"] = path
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)


@pytest.mark.parametrize("pinned", [[], ["PINNED=1"]])
def test_the_tested_versions_are_installed_when_asked(pinned: list[str], replaced: Path) -> None:
    environment = f"VENV={replaced / 'environment'}"
    python = f"PYTHON={replaced / 'python3.11'}"
    for _ in range(2):  # the second time nothing is installed
        done = make("demo", environment, python, *pinned, folder=replaced)
        assert done.returncode == 0, done.stderr
    constraint = ROOT / ".ci" / "constraints.txt" if pinned else ""
    assert (replaced / "log").read_text() == f"constraint: {constraint}\n"
    assert done.stdout.splitlines()[-2] == "trained"
    assert "environment/bin/activate" in done.stdout.splitlines()[-1]
    if not pinned:  # the environment has the newest versions, so others have to be installed
        make("demo", environment, python, "PINNED=1", folder=replaced)
        make("demo", environment, python, "PINNED=0", folder=replaced)
        tested = f"constraint: {ROOT / '.ci' / 'constraints.txt'}\n"
        newest = "constraint: \n"
        assert (replaced / "log").read_text() == newest + tested + newest


def test_the_tested_versions_need_their_python(replaced: Path) -> None:
    environment = f"VENV={replaced / 'environment'}"
    python = f"PYTHON={replaced / 'python3.12'}"
    done = make("demo", environment, python, "PINNED=1", folder=replaced)
    assert done.returncode != 0
    assert "for Python 3.11; found 3.12. Add PYTHON=python3.11" in done.stderr
    assert (replaced / "log").read_text() == ""
    assert make("demo", environment, python, folder=replaced).returncode == 0


@pytest.mark.parametrize("status", [0, 1])
def test_chromium_is_named_before_it_is_installed(status: int, tmp_path: Path) -> None:
    for name in ("bash", "make", "sh"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    program(tmp_path / "apt-get", f'echo noise; echo "apt-get $*" >> "$LOG"; exit {status}')
    done = make("browser", folder=tmp_path, path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "Installing Chromium with apt-get, for the tests of web pages."
    assert len(said) == 1 + status
    assert said[1:] == ["Chromium could not be installed: tests of pages are skipped."] * status
    assert (tmp_path / "log").read_text().startswith("apt-get update")
    program(tmp_path / "chromium", "exit 0")
    (tmp_path / "log").write_text("")
    assert make("browser", folder=tmp_path, path=str(tmp_path)).stdout == ""
    assert (tmp_path / "log").read_text() == ""


def test_the_tests_of_every_change_use_the_tested_versions() -> None:
    assert "\nmake test PINNED=1" in (ROOT / ".ci" / "run").read_text()


def test_the_oldest_versions_of_all_dependencies_are_installed(replaced: Path) -> None:
    oldest = replaced / "environment"
    python = f"PYTHON={replaced / 'python3.11'}"
    done = make(f"{oldest}/installed", f"OLDEST={oldest}", python, folder=replaced)
    assert done.returncode == 0, done.stderr
    constraints = (oldest / "constraints.txt").read_text().splitlines()
    dependencies = [Requirement(text) for text in requires("kernelviz-callback") or []]
    needed = [each for each in dependencies if "extra" not in str(each.marker)]
    assert len(needed) > 10
    for each in needed:
        [lowest] = [s.version for s in each.specifier if s.operator == ">="]
        assert f"{each.name}=={lowest}" in constraints
