"""Small files that would hang the readers or take gigabytes: each is refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from bombs import BOMBS
from forked import run_python

SCRIPT = Path(__file__).parents[1] / "bombs.py"
FOUND_NO_LAYER = "found no 2-D convolution"  # then follow the tensors that cannot be shown


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each file. One process with limited memory and time reads all of them."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = {bomb: folder / f"{number}.pt" for number, bomb in enumerate(BOMBS)}
    for bomb, path in paths.items():
        BOMBS[bomb](path)
    done = run_python(str(SCRIPT), *map(str, paths.values()), cwd=folder)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    lines = map(json.loads, done.stdout.splitlines())
    return {
        bomb: {"path": str(path), **found}
        for (bomb, path), found in zip(paths.items(), lines, strict=True)
    }


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_in_one_line_that_names_the_file(
    bomb: str, results: dict[str, dict[str, Any]]
) -> None:
    found = results[bomb]
    print(found["seconds"], "s:", *found["lines"], sep="\n")
    assert found["status"] == [2]
    line, *listed = found["lines"]
    assert line.startswith(f"kernelviz: {found['path']}: "), line
    assert not listed or FOUND_NO_LAYER in line
    for each in found["lines"]:
        assert len(each) - len(found["path"]) < 400, each
        assert each.isprintable(), each
        assert "memory" not in each.lower(), each
        assert "fault of kernelviz" not in each, each
