"""What the package as a whole promises: its layers, its public names, a cheap import."""

import subprocess
import sys
from pathlib import Path

import pytest

import kernelviz_callback

PACKAGE = Path(kernelviz_callback.__file__).parent


def test_no_figure_of_matplotlib_is_drawn() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert "pyplot" not in path.read_text(), path.name


def test_no_room_is_too_large() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name


def test_the_public_names_resolve_and_are_documented() -> None:
    for name in kernelviz_callback.__all__:
        assert getattr(kernelviz_callback, name).__doc__, name
    assert set(kernelviz_callback.__all__) <= set(dir(kernelviz_callback))
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = kernelviz_callback.nothing


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, kernelviz_callback; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "lightning", "numpy", "PIL", "tensorboard"} & set(loaded)


def test_the_version_has_an_entry_in_the_changelog() -> None:
    changelog = (PACKAGE.parent / "CHANGELOG.md").read_text()
    assert f"## [{kernelviz_callback.__version__}]" in changelog
