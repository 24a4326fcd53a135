"""Graphs that a training captures while a snapshot is drawn, or in which it takes one."""

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import warned
from torch import nn

from kernelviz_callback import KernelWatcher, list_snapshots
from kernelviz_callback.training import cuda_capture
from kernelviz_callback.training.cuda_capture import exempt_this_thread, is_capturing

on_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def gpu(test):
    for mark in on_cuda:
        test = mark(test)
    return test


def _in_a_thread(*calls: Callable[[], None]) -> None:
    thread = threading.Thread(target=lambda: [call() for call in calls])
    thread.start()
    thread.join()


def test_without_cuda_nothing_is_captured() -> None:
    assert torch.cuda.is_initialized() or not is_capturing()


def test_a_runtime_that_cannot_be_found_gives_one_warning(monkeypatch) -> None:
    def missing() -> None:
        raise OSError("no libcudart")

    monkeypatch.setattr(cuda_capture, "_runtime", missing)
    cuda_capture._warn_once.cache_clear()
    with pytest.warns(UserWarning, match=r"may fail \(no libcudart\)") as caught:
        _in_a_thread(exempt_this_thread, exempt_this_thread)
    assert len(warned(caught)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _in_a_thread(exempt_this_thread)


@gpu
def test_only_the_calling_thread_is_exempt() -> None:
    torch.zeros(1, device="cuda")
    modes = []

    def ask() -> None:
        exempt_this_thread()
        modes.append(cuda_capture._set_mode(2))

    _in_a_thread(ask)
    before = cuda_capture._set_mode(0)
    assert (modes, before) == ([2], 0)


@gpu
@pytest.mark.parametrize("scale", ["filter", "run"])
def test_graphs_are_captured_while_snapshots_are_drawn(tmp_path: Path, scale: str) -> None:
    conv = nn.Conv2d(3, 64, 7, device="cuda")
    net = nn.Sequential(conv, nn.ReLU(), nn.Conv2d(64, 64, 3, device="cuda"))
    images = torch.rand(4, 3, 64, 64, device="cuda")
    with torch.no_grad():
        net(images)
        torch.cuda.synchronize()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with KernelWatcher(net, tmp_path, layers="0", scale=scale) as watcher:
                for step in range(40):
                    conv.weight.mul_(0.99)
                    watcher.snapshot(step)
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        found = net(images)
                    graph.replay()
                    assert torch.allclose(found, net(images))
    assert len(list_snapshots(tmp_path / "kernelviz")) == 40


@gpu
def test_a_snapshot_within_a_capture_is_left_out_with_a_warning(tmp_path: Path) -> None:
    conv = nn.Conv2d(3, 8, 5, device="cuda")
    images = torch.rand(4, 3, 16, 16, device="cuda")
    with torch.no_grad(), KernelWatcher(conv, tmp_path) as watcher:
        watcher.snapshot(0)
        expected = conv(images)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        found = []

        def capture() -> None:
            with torch.cuda.graph(graph):
                found.append(conv(images))
                watcher.snapshot(1)

        with pytest.warns(UserWarning, match="step 1 could not read .* is being captured"):
            capture()
        graph.replay()
        assert torch.equal(found[0], expected)
        watcher.snapshot(2)
    assert list(list_snapshots(tmp_path / "kernelviz")) == [0, 2]
