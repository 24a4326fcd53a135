"""Find the checkpoints that a path, glob or folder stands for."""

import os
import re
import sys
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from upath import UPath

from kernelviz_callback import Snapshot, save_snapshot
from kernelviz_callback.checkpoints.checkpoint import load_weights, open_checkpoint
from kernelviz_callback.checkpoints.find import find_checkpoints
from kernelviz_callback.model.convolutions import Geometry

WEIGHT = torch.arange(8 * 3 * 5 * 5.0).view(8, 3, 5, 5)


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"conv.weight": WEIGHT}, path)


def snapshots(folder: Path | UPath, *steps: int) -> None:
    geometry = {"conv": Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)}
    for step in steps:
        save_snapshot(Snapshot(step, 0, 0.0, {"conv": WEIGHT}, geometry), folder)


def names(location: str | Path | UPath) -> list[str]:
    return [Path(found).name for found in find_checkpoints(location)]


def test_a_file_is_found_by_path_and_by_url(tmp_path: Path) -> None:
    save(tmp_path / "a.pt")
    assert find_checkpoints(tmp_path / "a.pt") == [str(tmp_path / "a.pt")]
    assert find_checkpoints(f"file://{tmp_path}/a.pt") == [f"file://{tmp_path}/a.pt"]
    assert torch.equal(load_weights(f"file://{tmp_path}/a.pt"), WEIGHT)
    assert find_checkpoints("torchvision:resnet18") == ["torchvision:resnet18"]


def test_the_files_of_a_folder_are_ordered_by_step(tmp_path: Path) -> None:
    order = ["epoch=1-step=9.ckpt", "epoch=0-step=10.ckpt", "step_100.pt", "epoch=9.pth"]
    order += ["epoch=10.bin", "last.ckpt", "last-v1.ckpt"]
    save(*(tmp_path / name for name in reversed(order)))
    (tmp_path / "notes.txt").write_text("no checkpoint")
    assert sorted(names(tmp_path)) == sorted(order)
    assert names(tmp_path)[:5] == order[:5]
    assert names(f"{tmp_path}/*.p*") == ["step_100.pt", "epoch=9.pth"]


def test_a_glob_finds_files_in_several_run_folders(tmp_path: Path) -> None:
    save(*(tmp_path / f"run_{n}" / "checkpoints" / "last.ckpt" for n in (10, 2, 1)))
    expected = [str(tmp_path / f"run_{n}/checkpoints/last.ckpt") for n in (1, 2, 10)]
    assert find_checkpoints(f"{tmp_path}/*/checkpoints/last.ckpt") == expected
    assert find_checkpoints(f"{tmp_path}/**/*.ckpt") == expected
    assert find_checkpoints(f"file://{tmp_path}/run_?/checkpoints/*") == expected[:2]
    assert find_checkpoints(f"{tmp_path}/run_*") == expected, "each match is a run folder"


def test_a_glob_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a" / "b.pt")
    monkeypatch.chdir(tmp_path)
    assert find_checkpoints("*/b.pt") == find_checkpoints("a/*.pt") == ["a/b.pt"]
    assert find_checkpoints("../*/a/b.pt")


def test_an_existing_name_with_brackets_is_not_a_glob(tmp_path: Path) -> None:
    save(tmp_path / "a[1].pt")
    assert names(tmp_path / "a[1].pt") == ["a[1].pt"]


def test_a_run_folder_stands_for_its_snapshots(tmp_path: Path) -> None:
    snapshots(tmp_path / "kernelviz", 128, 9, 10)
    save(tmp_path / "checkpoints" / "step=1.ckpt")
    steps = [f"step-{step:08d}.safetensors" for step in (9, 10, 128)]
    assert names(tmp_path) == names(tmp_path / "kernelviz") == steps
    assert torch.equal(load_weights(find_checkpoints(tmp_path)[0]), WEIGHT)
    assert names(tmp_path / "checkpoints") == ["step=1.ckpt"]


def test_remote_folders_and_globs_are_found(tmp_path: Path) -> None:
    base = UPath(f"memory://test-sources-{time.monotonic_ns()}")
    for name in ("step=9.ckpt", "step=10.ckpt"):
        save(tmp_path / name)
        (base / "checkpoints").mkdir(parents=True, exist_ok=True)
        (base / "checkpoints" / name).write_bytes((tmp_path / name).read_bytes())
    snapshots(base / "kernelviz", 4, 2)
    assert names(base) == ["step-00000002.safetensors", "step-00000004.safetensors"]
    assert names(base / "checkpoints") == ["step=9.ckpt", "step=10.ckpt"]
    assert names(f"{base}/checkpoints/*=9.ckpt") == ["step=9.ckpt"]
    assert names(f"{base}/*/step*0.ckpt") == ["step=10.ckpt"]
    for found in [*find_checkpoints(base), *find_checkpoints(f"{base}/checkpoints")]:
        assert found.startswith("memory://")
        assert torch.equal(load_weights(found), WEIGHT)
    with pytest.raises(
        FileNotFoundError, match=r"memory://.*nothing: the file or folder does not exist"
    ):
        find_checkpoints(f"{base}/nothing")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The web server of Python, which sends whole files only."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    serving = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_files_of_a_web_server_without_ranges_are_read(server: str, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    save(tmp_path / "a.pt")
    torch.save({"conv.weight": WEIGHT}, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    for name in ("a.pt", "b.pt"):
        assert find_checkpoints(f"{server}/{name}") == [f"{server}/{name}"]
        assert torch.equal(load_weights(f"{server}/{name}"), WEIGHT)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://a/b.pt", "Unsupported filesystem: 'nosuch'"),
        ("s3://a/b.pt", "(Install s3fs to access S3|.*)"),
        ("http://127.0.0.1:9/a.pt", "the file or folder does not exist"),
        ("http://127.0.0.1:9/*.pt", ".*"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_an_error(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("s3fs", "botocore", "aiobotocore"):
        monkeypatch.setitem(sys.modules, module, None)
    for ask in (find_checkpoints, load_weights):
        with pytest.raises((ValueError, OSError), match=rf"^{re.escape(url)}: {message}") as raised:
            ask(url)
        assert "\n" not in str(raised.value)


def test_a_location_without_checkpoints_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, message in {
        "x.pt": "the file or folder does not exist",
        "*.pt": "no file matches",
        "no/where/*.pt": "no file matches",
        "empty": "found no checkpoint in this folder; expected snapshots",
    }.items():
        with pytest.raises(FileNotFoundError, match=message) as raised:
            find_checkpoints(tmp_path / name)
        assert str(raised.value).startswith(f"{tmp_path}{os.sep}{name}: ")
        assert "\n" not in str(raised.value)


def test_a_name_is_one_line_of_the_message() -> None:
    with pytest.raises(FileNotFoundError, match=r"^a\\nb\\x1b\.pt: the file or folder does not"):
        find_checkpoints("a\nb\x1b.pt")
    with pytest.raises(ValueError, match="expected the path of a checkpoint; found an empty name"):
        find_checkpoints("")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_a_file_that_must_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"x")
    (tmp_path / "a.pt").chmod(0)
    with pytest.raises(PermissionError, match=r"a\.pt: it cannot be read: Permission denied$"):
        open_checkpoint(tmp_path / "a.pt")


def test_a_name_too_long_for_the_disk_is_one_line() -> None:
    with pytest.raises(OSError, match=r"^x{300}\.pt: it cannot be read: File name too long$"):
        find_checkpoints("x" * 300 + ".pt")
