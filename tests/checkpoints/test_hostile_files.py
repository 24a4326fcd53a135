"""Open damaged files and hostile files: none of them executes code or fills the memory."""

import builtins
import json
import os
import pickle
import posix
import re
import runpy
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from test_torch_file import save_legacy, save_without_checksums
from torch import nn

from kernelviz_callback import Snapshot, save_snapshot
from kernelviz_callback.checkpoints.checkpoint import load_weights, open_checkpoint
from kernelviz_callback.model.convolutions import Geometry

SCRIPT = Path(__file__).parents[1] / "hostile_files.py"
PROCESSES = 2
MANY_TIMES = 110  # every file is damaged, by each process


def original(folder: Path) -> torch.Tensor:
    """Write a small checkpoint in every format, and return its weights."""
    torch.manual_seed(1)
    net = nn.Sequential()
    net.add_module("first", nn.Linear(40, 30))
    net.add_module("conv", nn.Conv2d(3, 8, 5))
    net.add_module("last", nn.Linear(40, 30))
    content = {
        "epoch": 3,
        "global_step": 12,
        "state_dict": net.state_dict(),
        "hyper_parameters": {"path": Path("x"), "names": ["a", "b"], "lr": 0.1},
    }
    weight = net.conv.weight.detach()
    torch.save(content, folder / "checked.pt")
    save_without_checksums(content, folder / "unchecked.pt")
    save_legacy(content, folder / "legacy.pt")
    save_legacy(net, folder / "module.pt")
    save_file(net.state_dict(), folder / "foreign.safetensors")
    geometry = {"conv": Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)}
    save_snapshot(Snapshot(3, 1, 0.0, {"conv": weight}, geometry), folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # saving with a single process warns
        dcp.save({"model": net.state_dict()}, checkpoint_id=folder / "distributed")
    torch.save(weight, folder / "weights.pt")
    return weight


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    original(folder)
    return folder


@pytest.fixture(scope="module", params=[25, pytest.param(MANY_TIMES, marks=pytest.mark.long)])
def times(request: pytest.FixtureRequest) -> int:
    """How often every file is damaged, by each process."""
    return request.param


@pytest.fixture(scope="module")
def results(originals: Path, times: int) -> list[dict[str, Any]]:
    """What came of every damaged file; the children end early if one does harm."""
    commands = [[sys.executable, SCRIPT, originals, str(n), str(times)] for n in range(PROCESSES)]
    children = [
        subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for c in commands
    ]
    found = []
    for child in children:
        out, err = child.communicate(timeout=300)
        assert child.returncode == 0, out[-500:] + err[-3000:]
        found += [json.loads(line) for line in out.splitlines()]
    return found


def test_nothing_executes_hangs_or_takes_memory(results: list[dict[str, Any]], times: int) -> None:
    opened = [r for r in results if "outcome" in r]
    assert len(opened) >= 1000 * times / MANY_TIMES
    assert max(r["seconds"] for r in opened) < 5
    grown = [r["grown"] for r in results if "grown" in r]
    assert len(grown) == PROCESSES
    assert max(grown) < 40 << 20


def test_every_message_is_one_line_that_names_the_file(
    results: list[dict[str, Any]], times: int
) -> None:
    errors = [r for r in results if r.get("outcome") == "error"]
    assert len(errors) > 300 * times / MANY_TIMES
    for r in errors:
        message, _, candidates = r["message"].partition("\n")
        assert r["opened"] in message, r
        assert len(message) < len(r["opened"]) + 250, r
        assert message.isprintable(), r
        assert not candidates or re.search("found no (single|2-D)|cannot be shown", message), r


def test_wrong_weights_come_only_from_files_without_checksums(
    results: list[dict[str, Any]], originals: Path
) -> None:
    weight = torch.load(originals / "weights.pt", weights_only=True).numpy().tobytes()
    outcomes = {r["outcome"] for r in results if "outcome" in r}
    assert outcomes == {"right", "other", "error"}
    for r in results:
        if r.get("outcome") != "other":
            continue
        assert r["file"] != "checked.pt", r
        if r["moved"]:
            continue  # bytes were inserted or deleted, so the weights are read from another place
        path = originals / r["file"]
        content = (path / r["part"] if path.is_dir() else path).read_bytes()
        at = content.find(weight)
        structure = range(0, max(content.find(b"\x80\x02") + 1500, 1500))
        start, end = r["at"]
        touched = at < end and start < at + len(weight)
        assert touched or start in structure or r["part"] == ".metadata", r


def payloads(marker: Path) -> dict[str, Any]:
    """Make objects that create the marker file when they are unpickled."""
    touch = f"touch {marker}"

    class Calls:
        def __init__(self, function: Any, *arguments: Any) -> None:
            self.call = function, arguments

        def __reduce__(self) -> Any:
            return self.call

    script = marker.with_suffix(".py")
    script.write_text(f"open({str(marker)!r}, 'w').close()")
    code = script.read_text()
    return {
        "os.system": Calls(os.system, touch),
        "posix.system": Calls(posix.system, touch),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "getattr": Calls(getattr, Calls(__import__, "os"), "getcwd"),
        "nested getattr": Calls(getattr(Path, "touch"), marker),  # noqa: B009
        "Popen": Calls(subprocess.Popen, touch.split()),
        "check_output": Calls(subprocess.check_output, touch.split()),
        "a function of the user": Calls(make, marker),
        "runpy": Calls(runpy.run_path, str(script)),
        "in a reduce": Calls(dict, Calls(list, Calls(os.system, touch))),
        "a state": Stateful(marker),
        "map": Calls(list, Calls(map, eval, [code])),
        "torch": Calls(torch.load, str(marker.with_suffix(".pt"))),
        "a module": Calls(__import__, "this"),
        "open": Calls(builtins.open, str(marker), "w"),
    }


def make(marker: Path) -> None:
    marker.touch()


class Stateful:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["marker"].touch()


NAMES = list(payloads(Path("/tmp/kernelviz-never-made")))
REAL = ("os.system", "posix.system", "eval", "exec", "runpy", "a state", "a function of the user")


@pytest.mark.parametrize("name", REAL)
def test_unpickling_the_payloads_executes_them(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    pickle.loads(pickle.dumps(payloads(marker)[name]))
    assert marker.exists()


@pytest.mark.parametrize("save", ["zip", "legacy", "metadata"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_a_file_is_executed(name: str, save: str, protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    payload = payloads(marker)[name]
    weight = torch.rand(8, 3, 5, 5)
    content = {"conv.weight": weight, "payload": payload}
    path = tmp_path / "a.pt"
    if save == "zip":
        torch.save(content, path, pickle_protocol=protocol)
    elif save == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    else:
        path.mkdir()
        (path / ".metadata").write_bytes(pickle.dumps(payload, protocol))
    try:
        assert torch.equal(load_weights(path), weight)
        is_read = True
    except ValueError as error:
        message = str(error)
        is_read = False
    assert not marker.exists()
    if not is_read:
        assert re.fullmatch(rf"{path}: [^\n]*(hostile: it calls|damaged|neither)[^\n]*", message)


PICKLES = {
    "a bytearray of 10**10": b"c__builtin__\nbytearray\n\x8a\x05\x00\xe4\x0bT\x02\x85R.",
    "a tensor of 10**10": b"ctorch\nFloatTensor\n\x8a\x05\x00\xe4\x0bT\x02\x85R.",
    "a storage of 10**10": b"ctorch.storage\nUntypedStorage\n\x8a\x05\x00\xe4\x0bT\x02\x85R.",
    "a tuple to hash": b"}N" + b"2\x86" * 200 + b"Ns.",
    "a set to hash": b"c__builtin__\nset\n](N" + b"2\x86" * 200 + b"e\x85R.",
    "lists in lists": b"](" * 100_000 + b"e" * 100_000 + b".",
    "a list 2**40 times": b"]" + b"2\x86" * 40 + b".",
    "a large index": b"Nr\xff\xff\xff\xff.",
    "deep tuples": b"N" + b"\x85" * 100_000 + b".",
    "a persistent id": b"X\1\0\0\0aQ.",
    "a list as persistent id": b"]Q.",
    "an extension": b"\x82\1.",
    "a long integer": b"\x8b\x00\x00\x10\x00" + b"\xff" * (1 << 20) + b".",
}


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("save", ["zip", "legacy", "metadata"])
def test_pickles_that_would_fill_the_memory_are_refused(
    name: str, save: str, tmp_path: Path
) -> None:
    content = b"\x80\x02" + PICKLES[name]
    path = tmp_path / "a.pt"
    if save == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", content)
    elif save == "legacy":
        save_legacy(1, path)
        header = path.read_bytes().split(b"\x80\x02K\x01.")[0]
        path.write_bytes(header + content + b"\x80\x02].")
    else:
        path.mkdir()
        (path / ".metadata").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^{path}: [^\n]*") as raised:
        load_weights(path)
    assert "neither" not in str(raised.value)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"]" * (1 << 28))
    with pytest.raises(ValueError, match=rf"^{path}: its record 'data.pkl' is compressed[^\n]*$"):
        open_checkpoint(path)


def test_a_zip_file_with_too_many_records_is_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    entry = b"PK\1\2" + bytes(24) + b"\1\0" + bytes(16) + b"x"
    count = (20 << 20) // len(entry)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, count * len(entry), 4, 0)
    path.write_bytes(b"PK\3\4" + entry * count + end)
    began = time.process_time()
    with pytest.raises(ValueError, match=rf"^{path}: damaged or cut short[^\n]*$"):
        open_checkpoint(path)
    assert time.process_time() - began < 0.5


def test_cyclic_dicts_are_read_once(tmp_path: Path) -> None:
    cyclic: dict[str, Any] = {"conv.weight": torch.rand(8, 3, 5, 5)}
    for i in range(1000):
        cyclic[f"again{i}"] = {"up": cyclic, "self": cyclic}
    torch.save(cyclic, tmp_path / "a.pt")
    assert list(open_checkpoint(tmp_path / "a.pt").layers) == ["conv"]
