"""What an event of the Kernels tab holds of a snapshot and of a probe."""

import numpy as np
import pytest
import torch

from kernelviz_callback import Geometry, Snapshot, kernel_health
from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.event import MOST_BYTES, pack_image, pack_layer, verdict_bits
from kernelviz_callback.tensorboard_plugin.codec import unpack_probe, unpack_snapshot
from kernelviz_callback.tensorboard_plugin.header import USUAL_DATA_BYTES

ATTEMPT = Attempt("a1b2", 1_700_000_000_000)


def weights(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def snapshot(**layers: torch.Tensor) -> Snapshot:
    geometry = {
        name: Geometry("Conv2d", (i + 1, 1), (i, 0), (1, 1), 1) for i, name in enumerate(layers)
    }
    return Snapshot(12, 3, 1_700_000_000.5, layers, geometry, probe_digest="a probe")


def test_the_header_says_when_and_in_which_attempt_the_layer_was_recorded() -> None:
    taken = snapshot(first=weights(8, 3, 5, 5), second=weights(4, 8, 3, 3))
    header, payload = pack_layer(taken, "second", ATTEMPT, began_at=7)
    assert (header["layer"], header["step"], header["epoch"]) == ("second", 12, 3)
    assert header["wall_time"] == 1_700_000_000.5
    assert (header["training"], header["attempt"]) == (ATTEMPT.training, ATTEMPT.number)
    assert header["began_at"] == 7
    assert Geometry.from_dict(header["geometry"]) == taken.geometry["second"]
    assert header["probe"] == "a probe"
    assert header["drift"] is None
    stored = unpack_snapshot(header, payload)
    assert stored.data.shape == (4, 8, 3, 3)
    assert not stored.verdict_bits.any()


def test_a_filter_has_a_bit_for_each_of_its_verdicts() -> None:
    layer = weights(8, 3, 5, 5)
    layer[2] = layer[5]
    layer[3] = 0
    layer[6] = torch.nan
    health = kernel_health(layer)
    bits = verdict_bits(health)
    assert bits is not None
    for i in range(8):
        named = {name for bit, name in enumerate(VERDICT_NAMES) if bits[i] >> bit & 1}
        assert named == {verdict.name for verdict in health.verdicts if verdict.filter == i}
    assert verdict_bits(None) is None


@pytest.mark.parametrize(("count", "room"), [(1, USUAL_DATA_BYTES), (16, MOST_BYTES // 16)])
def test_a_layer_takes_no_more_than_its_share_of_the_room(count: int, room: int) -> None:
    layers = {f"conv{i}": weights(512, 512, 3, 3) for i in range(count)}
    header, payload = pack_layer(snapshot(**layers), "conv0")
    assert 0.5 * room < unpack_snapshot(header, payload).data.nbytes <= room


def test_the_probe_is_packed_with_its_name_and_attempt() -> None:
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(2))
    probe = Probe(image, "photo.png")
    header, payload = pack_image(probe, ATTEMPT)
    assert (header["name"], header["digest"]) == ("photo.png", probe.digest)
    assert header["attempt"] == ATTEMPT.number
    assert np.array_equal(unpack_probe(header, payload), image.numpy())
    assert pack_image(probe)[0]["attempt"] == 0
