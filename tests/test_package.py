"""The package as a whole: its size and order, its public names, and what an import loads."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kernelviz_callback

PACKAGE = Path(kernelviz_callback.__file__).parent
TESTS = Path(__file__).parent
PACKAGES = (
    "model",
    "filters",
    "probe",
    "health",
    "drawing",
    "tensorboard_plugin",
    "snapshots",
    "checkpoints",
    "comparison",
    "training",
    "commands",
)


def test_the_package_has_its_eleven_parts() -> None:
    assert sorted(PACKAGES) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    assert len(list(PACKAGE.glob("*.py"))) <= 9


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_says_what_it_contains_and_who_may_import_it(name: str) -> None:
    document = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    assert document is not None
    assert 3 <= len(document.splitlines()) <= 8
    assert "import" in document


def test_no_module_draws_with_pyplot() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"import .*pyplot|matplotlib\.pyplot", path.read_text()), path.name


def test_no_module_has_more_than_400_lines() -> None:
    for path in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.js")]:
        assert len(path.read_text().splitlines()) <= 400, path.name


def private_imports(folder: Path) -> Iterator[str]:
    """Find the names with a leading underscore that a module imports from another of ours."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                yield from (f"{path.name}: {n}" for n in private if not n.startswith("__"))


def test_no_module_and_no_test_imports_a_private_name() -> None:
    root = TESTS.parent
    for folder in (PACKAGE, TESTS, root / "benchmarks", root / "examples"):
        assert not list(private_imports(folder))


def test_the_filters_package_imports_torch_and_the_standard_library_alone() -> None:
    for path in (PACKAGE / "filters").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                is_allowed = name.split(".")[0] in {"torch", *sys.stdlib_module_names}
                assert is_allowed or name.startswith("kernelviz_callback.filters."), path.name


def test_the_public_names_resolve_and_are_documented() -> None:
    assert len(kernelviz_callback.__all__) == 44
    for name in kernelviz_callback.__all__:
        assert getattr(kernelviz_callback, name).__doc__, name
    assert set(kernelviz_callback.__all__) <= set(dir(kernelviz_callback))
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = kernelviz_callback.nothing


def test_an_import_of_the_package_loads_no_large_library() -> None:
    code = "import sys, kernelviz_callback; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "lightning", "numpy", "PIL", "tensorboard"} & set(loaded)


def test_the_version_has_an_entry_in_the_changelog() -> None:
    changelog = (PACKAGE.parent / "CHANGELOG.md").read_text()
    assert f"## [{kernelviz_callback.__version__}]" in changelog
