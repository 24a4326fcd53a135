"""What the package as a whole promises: its layers, its public names, a cheap import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kernelviz_callback

PACKAGE = Path(kernelviz_callback.__file__).parent

# The rooms from the ground floor up. A room may import the rooms of lower floors, never its own. A
# folder is one room, or, where they are named here, each of its files is.
FLOORS = [
    {"chart", "colour", "exact", "filters", "grid_notes", "picture", "planes"},
    {"curves", "responses", "verdict_names"},
    {"framework", "principal", "schedule", "storage", "streams", "tensorboard_plugin", "untouched"},
    {"opening.layers", "opening.plain_pickle", "opening.region"},
    {"opening.safetensors_file", "opening.walk", "running"},
    {"opening.torch_file"},
    {"opening.distributed"},
    {"opening.checkpoint"},
    {"opening.lining_up"},
    {"probe", "caption", "gathering", "worker", "mishaps", "patience"},
    {"measures", "spectrum", "similarity", "probe_energy"},
    {"null_model", "batch_probe", "destinations"},
    {"verdicts", "health_log"},
    {"health_chart"},
    {"health"},
    {"absence", "flags", "alarm"},
    {"examination", "tiles"},
    {"grid"},
    {"snapshot_pictures"},
    {"snapshot"},
    {"claim", "filming", "monitor", "opening.sources", "packing"},
    {"illustrator", "resume", "run_folder", "watch"},
    {"publisher", "report"},
    {"recorder"},
    {"observer"},
    {"callback", "watcher"},
    {"comparing", "demo", "showing"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
PURE = {
    "absence",
    "alarm",
    "caption",
    "chart",
    "claim",
    "colour",
    "comparing",
    "curves",
    "exact",
    "examination",
    "filming",
    "filters",
    "flags",
    "gathering",
    "illustrator",
    "mishaps",
    "grid",
    "grid_notes",
    "health",
    "health_chart",
    "measures",
    "monitor",
    "null_model",
    "opening.checkpoint",
    "opening.distributed",
    "opening.layers",
    "opening.lining_up",
    "opening.plain_pickle",
    "opening.region",
    "opening.safetensors_file",
    "opening.sources",
    "opening.torch_file",
    "opening.walk",
    "packing",
    "patience",
    "picture",
    "planes",
    "principal",
    "probe",
    "probe_energy",
    "report",
    "responses",
    "resume",
    "run_folder",
    "running",
    "schedule",
    "similarity",
    "snapshot",
    "snapshot_pictures",
    "spectrum",
    "storage",
    "streams",
    "tiles",
    "verdict_names",
    "verdicts",
    "watch",
    "worker",
}


ROOMS = set().union(*FLOORS)


def files_of(room: str) -> list[Path]:
    path = PACKAGE.joinpath(*room.split("."))
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imports(room: str) -> tuple[set[str], set[str]]:
    """The other rooms, and the foreign packages, that a room imports anywhere in its files."""
    rooms, foreign = set(), set()
    nodes = [node for path in files_of(room) for node in ast.walk(ast.parse(path.read_text()))]
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, inner = name.partition(".")
            if package == "kernelviz_callback":
                rooms |= {inner, inner.partition(".")[0]} & ROOMS
            else:
                foreign.add(package)
    return rooms - {room}, foreign


def test_every_room_has_a_floor() -> None:
    files = {path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    named = [path for room in ROOMS for path in files_of(room) if path.name != "__init__.py"]
    assert files == set(named)
    assert len(named) == len(files), "each stands on one floor"


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_no_room_imports_a_higher_one(floor: int) -> None:
    below = set().union(*FLOORS[:floor])
    for room in FLOORS[floor]:
        assert imports(room)[0] <= below, room


def test_only_the_upper_rooms_know_of_training() -> None:
    for room in PURE:
        assert not imports(room)[1] & {"lightning", "tensorboard"}, room


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
