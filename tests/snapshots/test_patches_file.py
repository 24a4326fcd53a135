"""The file of what layers read: written, read back, and damaged."""

from pathlib import Path

import torch

from kernelviz_callback.filters.patches import Patches
from kernelviz_callback.model.followers import Follower
from kernelviz_callback.snapshots.patches_file import LayerData, load_patches, save_patches

FOLLOWER = Follower("batch", {"gamma": "bn.weight"}, 1e-3, nonlinearity="relu")


def drawn(scale: float = 1.0) -> LayerData:
    rows = scale * torch.randn(2, 50, 9, generator=torch.Generator().manual_seed(0))
    covariance = torch.stack([group.T.cov() for group in rows]).double()
    return LayerData(Patches(rows.mean(1).double(), covariance, rows, 50), FOLLOWER)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    written = {"stem.conv": drawn(), "a/b": drawn(1e6)}
    save_patches(written, tmp_path)
    found = load_patches(tmp_path)
    assert found.keys() == written.keys()
    for layer, expected in written.items():
        assert found[layer].follower == FOLLOWER
        patches = found[layer].patches
        assert patches.count == 50
        for name in ("mean", "covariance", "sample"):
            values = getattr(expected.patches, name)
            tolerance = 1e-3 if name == "sample" and layer == "stem.conv" else 1e-6
            torch.testing.assert_close(
                getattr(patches, name), values, rtol=tolerance, atol=tolerance
            )


def test_a_folder_without_the_file_or_with_a_damaged_one_has_no_patches(tmp_path: Path) -> None:
    assert load_patches(tmp_path) == {}
    save_patches({"conv": drawn()}, tmp_path)
    path = tmp_path / "patches.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    assert load_patches(tmp_path) == {}
    path.write_bytes(content.replace(b'\\"count\\": 50', b'\\"count\\": []'))
    assert load_patches(tmp_path) == {}
