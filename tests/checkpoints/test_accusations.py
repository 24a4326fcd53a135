"""A file is called hostile only if it calls something dangerous, and the message says what."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
from kernelviz_callback.checkpoints.dangerous_calls import danger_of

DANGEROUS = {
    "os.system": "runs a program",
    "posix.execv": "runs a program",
    "nt.startfile": "runs a program",
    "subprocess.Popen": "runs a program",
    "pty.spawn": "runs a program",
    "builtins.eval": "runs Python code",
    "code.InteractiveInterpreter": "runs Python code",
    "timeit.timeit": "runs Python code",
    "runpy.run_path": "runs Python code",
    "importlib.import_module": "imports a module",
    "pickle.loads": "unpickles data, which may run anything",
    "torch.load": "unpickles data, which may run anything",
    "builtins.open": "opens, changes or deletes files",
    "os.remove": "opens, changes or deletes files",
    "shutil.rmtree": "opens, changes or deletes files",
    "urllib.request.urlopen": "opens a connection",
    "socket.socket": "opens a connection",
    "ctypes.CDLL": "loads a library into the process",
}


@pytest.mark.parametrize("name", DANGEROUS)
def test_a_dangerous_call_is_named_with_what_it_does(name: str) -> None:
    assert danger_of(name) == DANGEROUS[name]


PACKAGES = ["code", "os", "pdb", "socket", "importlib", "timeit", "shutil", "subprocess"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_model_of_a_package_with_the_name_of_a_module_is_opened(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 5)

    module = f"{package}.models"
    Net.__module__, Net.__qualname__ = module, "Net"
    net: Any = Net()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module, types.ModuleType(module))
        patch.setattr(sys.modules[module], "Net", Net, raising=False)
        torch.save({"model": net, "seen": {Net}}, tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    assert torch.equal(checkpoint.read("conv"), net.conv.weight)


HARMLESS = ["os.stat_result", "os.environ", "pathlib.PosixPath", "socket.AddressFamily"]
HARMLESS += ["ctypes.c_int", "types.CodeType", "builtins.getattr", "functools.partial", "code.Net"]
HARMLESS += ["cloudpickle.cloudpickle._make_function", "pickle.PickleBuffer", "shutil.ReadError"]


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_names_of_the_same_modules_are_not_accused(name: str) -> None:
    assert danger_of(name) is None
