"""The file of a probe: written, and read back exactly."""

from pathlib import Path

import pytest
import torch

from kernelviz_callback import Probe, make_chart
from kernelviz_callback.snapshots.probe_file import load_saved_probe, save_probe


@pytest.mark.parametrize("image", [make_chart(32), torch.randn(4, 5, 6)], ids=["chart", "floats"])
def test_a_probe_is_read_back_exactly(image, tmp_path: Path) -> None:
    probe = Probe(image, "some name")
    assert load_saved_probe(tmp_path) is None
    save_probe(probe, tmp_path)
    read = load_saved_probe(tmp_path)
    assert read is not None
    assert (read.name, read.digest) == (probe.name, probe.digest)
    (tmp_path / "probe.safetensors").write_bytes(b"damaged")
    assert load_saved_probe(tmp_path) is None


def test_a_second_probe_does_not_replace_the_first(tmp_path: Path) -> None:
    first, second = Probe(make_chart(32), "chart"), Probe(torch.rand(3, 4, 4), "tensor")
    for probe in (first, second, first):
        save_probe(probe, tmp_path)
    assert load_saved_probe(tmp_path).digest == first.digest
    for probe in (first, second):
        assert load_saved_probe(tmp_path, probe.digest).digest == probe.digest
    assert load_saved_probe(tmp_path, "f" * 64) is None
