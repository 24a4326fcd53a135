"""The links, the table of options and the commands in the README."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from forked import run_python

from kernelviz_callback import KernelVizCallback
from kernelviz_callback.cli import main, parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_exists(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


def test_the_table_of_options_is_complete() -> None:
    import inspect

    signature = inspect.signature(KernelVizCallback)
    table = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", README, re.MULTILINE))
    expected = {
        name: f'"{p.default}"' if isinstance(p.default, str) else str(p.default)
        for name, p in signature.parameters.items()
    }
    assert table == expected


def _commands() -> list[list[str]]:
    """List the commands in the blocks for the shell, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


COMMANDS = _commands()
OF_KERNELVIZ = [command[1:] for command in COMMANDS if command[0] == "kernelviz"]


@pytest.fixture(scope="module")
def after_the_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the demo has run, shortly."""
    folder = tmp_path_factory.mktemp("readme")
    code = "from kernelviz_callback.cli import main; exit(main())"
    done = run_python("-c", code, "demo", "--epochs", "1", "--batches", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.processes
@pytest.mark.parametrize("arguments", OF_KERNELVIZ, ids=" ".join)
def test_a_command_runs_on_what_the_demo_made(
    arguments: list[str], after_the_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(after_the_demo)
    parser().parse_args(arguments)
    if any(one.startswith("torchvision:") for one in arguments):
        return  # it would download a network
    outputs = [Path(after) for one, after in pairwise(arguments) if one == "-o"]
    assert outputs
    assert main(arguments) == 0
    for path in outputs:
        written = [path, *Path().glob(f"{path.stem}-*{path.suffix}")]
        assert any(one.is_file() and one.stat().st_size > 1000 for one in written)


def test_every_other_command_is_there() -> None:
    others = [command for command in COMMANDS if command and command[0] != "kernelviz"]
    makefile = (ROOT / "Makefile").read_text()
    for program, *targets in others:
        if program == "make":
            assert all(
                re.search(rf"^{one}:", makefile, re.MULTILINE) for one in targets if "=" not in one
            )
        else:
            assert program in ("pip", "tensorboard")
    scripts = re.findall(r"`python (\S+\.py)", README)
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)
