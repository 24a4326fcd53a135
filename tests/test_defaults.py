"""Nothing depends on torch's default device and default dtype, which a training may change."""

import ast
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forked import run_python

import kernelviz_callback
from kernelviz_callback.training.channel import Channel

PACKAGE = Path(kernelviz_callback.__file__).parent
# Functions of torch that make a tensor on the default device, with the default dtype or not.
OF_ANY_DTYPE = ("arange", "as_tensor", "asarray", "randint", "randperm")
OF_DEFAULT_DTYPE = (
    *("empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randn", "tensor", "zeros"),
)


def made_by_default(path: Path) -> Iterator[str]:
    """Find the calls that make a tensor without naming its device, or a dtype where it matters."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name = node.func.attr
        if ast.unparse(node.func.value) != "torch" or name not in OF_ANY_DTYPE + OF_DEFAULT_DTYPE:
            continue
        given = {keyword.arg for keyword in node.keywords}
        needed = {"device", "dtype"} if name in OF_DEFAULT_DTYPE else {"device"}
        for missing in sorted(needed - given):
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}: torch.{name} without {missing}="


def test_every_new_tensor_names_its_device_and_its_dtype() -> None:
    found = [line for path in sorted(PACKAGE.rglob("*.py")) for line in made_by_default(path)]
    assert not found, "\n".join(found)


def digests(place: Path, device: str, dtype: str) -> list[str]:
    folder = place / f"{device}-{dtype}" / "work"
    folder.mkdir(parents=True)
    script = str(Path(__file__).with_name("every_call.py"))
    done = run_python(script, device, dtype, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return digests(tmp_path_factory.mktemp("usual"), "cpu", "float32")


WITH_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEFAULTS = [
    ("meta", "float32"),
    ("meta", "bfloat16"),
    pytest.param("cpu", "float64", marks=pytest.mark.long),
    pytest.param("cpu", "float16", marks=pytest.mark.long),
    pytest.param("cuda", "float64", marks=[pytest.mark.gpu, WITH_CUDA]),
]


@pytest.mark.processes
@pytest.mark.parametrize(("device", "dtype"), DEFAULTS)
def test_every_public_call_gives_the_same_under_any_default(
    tmp_path: Path, usual: list[str], device: str, dtype: str
) -> None:
    """Each default is set in a process of its own: cached tables would keep an earlier one."""
    assert len(usual) > 250
    assert digests(tmp_path, device, dtype) == usual


def test_weights_reach_the_drawing_process_under_a_default_device() -> None:
    ours, theirs = map(Channel, socket.socketpair())
    weights = torch.randn(8, 3, 5, 5, device="cpu", dtype=torch.bfloat16)
    with torch.device("meta"):
        ours.send([weights, weights[:0]], None)
        found, empty = theirs.receive(None)
    assert torch.equal(found, weights)
    assert (empty.shape, empty.dtype, empty.device.type) == ((0, 3, 5, 5), torch.bfloat16, "cpu")
    ours.close()
    theirs.close()
