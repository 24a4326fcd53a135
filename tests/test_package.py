"""What the package as a whole promises: its layers, its public names, a cheap import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kernelviz_callback

PACKAGE = Path(kernelviz_callback.__file__).parent

# The rooms from the ground floor up. A room may import the rooms of lower floors, never its own.
FLOORS = [
    {"exact", "filters", "chart", "picture", "colour", "responses"},
    {"schedule", "storage", "streams"},
    {"probe", "caption", "gathering", "worker", "mishaps"},
    {"measures", "spectrum", "similarity", "probe_energy"},
    {"null_model", "batch_probe", "loggers", "resume"},
    {"verdicts", "health_log"},
    {"health_chart"},
    {"health"},
    {"absence", "flags", "alarm", "snapshot"},
    {"examination"},
    {"grid", "monitor"},
    {"snapshot_pictures", "claim"},
    {"illustrator", "watch"},
    {"recorder"},
    {"callback"},
    {"demo"},
    {"cli"},
]
PURE = {
    "absence",
    "alarm",
    "caption",
    "chart",
    "claim",
    "colour",
    "exact",
    "examination",
    "filters",
    "flags",
    "gathering",
    "grid",
    "health",
    "health_chart",
    "measures",
    "monitor",
    "null_model",
    "picture",
    "probe",
    "probe_energy",
    "responses",
    "resume",
    "schedule",
    "similarity",
    "snapshot",
    "snapshot_pictures",
    "spectrum",
    "storage",
    "streams",
    "verdicts",
    "watch",
    "worker",
}


def imports(module: str) -> tuple[set[str], set[str]]:
    """The rooms, and the foreign packages, that a room imports anywhere in its file."""
    rooms, foreign = set(), set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            package, _, room = name.partition(".")
            if package == "kernelviz_callback":
                rooms |= {room} - {""}
            else:
                foreign.add(package)
    return rooms, foreign


def test_every_room_has_a_floor() -> None:
    assert {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"} == set().union(*FLOORS)


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_no_room_imports_a_higher_one(floor: int) -> None:
    below = set().union(*FLOORS[:floor])
    for room in FLOORS[floor]:
        assert imports(room)[0] <= below, room


def test_only_the_upper_rooms_know_of_training() -> None:
    for room in PURE:
        assert not imports(room)[1] & {"lightning", "tensorboard"}, room


def test_no_figure_of_matplotlib_is_drawn() -> None:
    for path in PACKAGE.glob("*.py"):
        assert "pyplot" not in path.read_text(), path.name


def test_no_room_is_too_large() -> None:
    for path in PACKAGE.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name


def test_the_public_names_resolve_and_are_documented() -> None:
    for name in kernelviz_callback.__all__:
        assert getattr(kernelviz_callback, name).__doc__, name
    assert set(kernelviz_callback.__all__) <= set(dir(kernelviz_callback))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
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
