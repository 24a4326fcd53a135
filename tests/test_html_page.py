"""The scripts of the pages: modules of several folders, joined into one script."""

import re
from collections import Counter
from pathlib import Path

import pytest

import kernelviz_callback
from kernelviz_callback.html_page import bundled_modules

PACKAGE = Path(kernelviz_callback.__file__).parent
TAB = "tensorboard_plugin/static"
ENTRIES = {"tab": f"{TAB}/app.js", "worker": f"{TAB}/worker.js", "comparison": "comparison/page.js"}
_DECLARED = re.compile(r"^(?:async )?(?:function\*?|class|const|let|var) (\w+)", re.MULTILINE)
_IMPORTED = re.compile(r'^import \{[^}]*\} from "([^"]*)";$', re.MULTILINE)


def _imports(module: Path) -> list[Path]:
    found = _IMPORTED.findall(module.read_text(encoding="utf-8"))
    return [(module.parent / path).resolve() for path in found]


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_script_has_no_imports_and_declares_each_name_once(entry: str) -> None:
    script = bundled_modules(entry)
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    assert [name for name, count in Counter(_DECLARED.findall(script)).items() if count > 1] == []


def test_a_module_comes_after_its_imports_of_any_folder() -> None:
    script = bundled_modules("comparison/page.js")
    places = [
        script.index(f"\n{name}")
        for name in ("class CellGrid", "class CheckpointTiles", "function buildPage")
    ]
    assert places == sorted(places)


def test_no_module_imports_itself_through_others() -> None:
    modules = [*PACKAGE.rglob("*.js")]
    assert len(modules) > 40
    done: set[Path] = set()

    def visit(module: Path, path: tuple[Path, ...]) -> None:
        assert module not in path, " -> ".join(each.name for each in (*path, module))
        if module not in done:
            for imported in _imports(module):
                visit(imported, (*path, module))
            done.add(module)

    for module in modules:
        visit(module.resolve(), ())
