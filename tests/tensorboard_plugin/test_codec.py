"""The bytes of our events, compared with loops; their limits; and unexpected input."""

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from tab_runs import ATTEMPT, DIGEST, GEOMETRY, RunWriter, bits_of, packed, random_weights
from tensorboard.util import tensor_util

from kernelviz_callback.drawing.colour import to_levels
from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.probe.probe import load_probe
from kernelviz_callback.tensorboard_plugin.codec import (
    check_payload,
    pack_probe,
    unpack_probe,
    unpack_snapshot,
    value_of,
)
from kernelviz_callback.tensorboard_plugin.header import parse_header, tag_of, to_content

FEW = 2.0**-11  # of the largest weight of its filter: the largest error of float16
LEVEL = 1 / 127


def packed_slowly(weights: np.ndarray, bits: list[int], dtype: str) -> bytes:
    """Make the payload number by number, as the docstring of the module describes it."""
    scales = []
    for kernels in weights:
        finite = [abs(float(w)) for w in kernels.ravel() if math.isfinite(w)]
        scales.append(max(finite, default=0.0))
    payload = b"".join(struct.pack("<f", scale) for scale in scales)
    payload += b"".join(struct.pack("B", each) for each in bits)
    for kernels, scale in zip(weights, scales, strict=True):
        for w in kernels.ravel():
            share = float(np.float32(w) / np.float32(scale or 1))
            if dtype == "float16":
                payload += struct.pack("<e", share)
            else:
                payload += struct.pack("B", round(128 + 127 * share) if math.isfinite(w) else 0)
    return payload


def unpacked_slowly(header: Any, payload: bytes) -> np.ndarray:
    n, c, h, w = header["shape"]
    weights = np.zeros((n, c, h, w), np.float32)
    for at, where in enumerate(np.ndindex(n, c, h, w)):
        (scale,) = struct.unpack_from("<f", payload, 4 * where[0])
        if header["dtype"] == "float16":
            (share,) = struct.unpack_from("<e", payload, 5 * n + 2 * at)
        else:
            level = payload[5 * n + at]
            share = (level - 128) / 127 if level else math.nan
        weights[where] = share * scale if math.isfinite(share) else math.nan
    return weights


def peculiar_weights(filters: int = 8) -> np.ndarray:
    weights = np.random.default_rng(1).normal(0, 0.1, (filters, 2, 3, 3)).astype(np.float32)
    weights[1] = 0
    weights[2, 0, 0, :] = [np.nan, np.inf, -np.inf]
    weights[3] = np.nan
    weights[4] *= np.float32(1e30)
    weights[5] = 1e-45
    weights[6] *= np.float32(1e-40)
    weights[7] = np.finfo(np.float32).max
    return weights


def test_a_payload_has_the_documented_format() -> None:
    weights = peculiar_weights()
    bits = bits_of({3: ["non-finite"], 1: ["near-zero", "frozen"]}, 8)
    header, payload = packed(weights, verdict_bits=bits)
    assert payload == packed_slowly(weights, [0, 0b100010, 0, 1, 0, 0, 0, 0], "float16")
    stored = unpack_snapshot(header, payload)
    assert np.array_equal(stored.weights(), unpacked_slowly(header, payload), equal_nan=True)
    assert np.array_equal(stored.verdict_bits, bits)


def test_a_payload_of_a_large_layer_has_the_documented_format() -> None:
    weights = np.tile(peculiar_weights(), (240, 1, 1, 1))
    header, payload = packed(weights, room=weights.size)
    assert header["dtype"] == "uint8"
    expected = packed_slowly(weights[:8], [0] * 8, "uint8")
    stored = unpack_snapshot(header, payload)
    assert stored.data[:8].tobytes() == expected[40:]
    slowly = unpacked_slowly(header, payload)
    assert np.allclose(stored.weights(), slowly, rtol=1e-6, atol=1e-45, equal_nan=True)


def test_eight_bit_levels_equal_those_of_pictures() -> None:
    weights = np.random.default_rng(2).normal(0, 0.1, (700, 3, 5, 5)).astype(np.float32)
    header, payload = packed(weights, room=weights.size)
    stored = unpack_snapshot(header, payload)
    scales = torch.from_numpy(stored.scales.copy())[:, None, None, None]
    assert np.array_equal(stored.data, to_levels(torch.from_numpy(weights), scales).numpy())
    error = np.abs(stored.weights() - weights) / stored.scales[:, None, None, None]
    assert error.max() <= 0.501 * LEVEL


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=4, max_dims=4, max_side=4),
        elements=st.floats(width=32),
    )
)
def test_weights_are_stored_with_the_precision_of_float16(weights: np.ndarray) -> None:
    before = weights.copy()
    header, payload = packed(weights)
    assert np.array_equal(weights, before, equal_nan=True)
    stored = unpack_snapshot(header, payload)
    finite = np.isfinite(weights)
    assert np.array_equal(np.isnan(stored.weights()), ~finite)
    largest = np.where(finite, np.abs(weights.astype(np.float64)), 0).max((1, 2, 3))
    assert np.array_equal(stored.scales, largest)
    error = np.where(finite, stored.weights().astype(np.float64) - weights, 0)
    assert (np.abs(error) <= FEW * largest[:, None, None, None] + 1e-45).all()
    assert parse_header(tag_of(header), to_content(header)) == header


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_weights_of_another_precision_are_packed(dtype: type) -> None:
    weights = np.random.default_rng(3).normal(0, 1, (2, 3, 5, 5)).astype(dtype)
    assert packed(weights)[1] == packed(weights.astype(np.float32))[1]
    assert np.isnan(unpack_snapshot(*packed(np.full((1, 1, 1, 1), 1e300))).weights()).all()


@pytest.mark.parametrize(
    ("shape", "stored", "dtype"),
    [
        ((64, 3, 7, 7), [64, 3, 7, 7], "float16"),
        ((96, 3, 11, 11), [96, 3, 11, 11], "float16"),
        ((512, 4, 8, 8), [512, 4, 8, 8], "float16"),  # exactly 256 KiB
        ((512, 4, 8, 9), [512, 4, 8, 9], "uint8"),
        ((256, 16, 8, 8), [256, 16, 8, 8], "uint8"),  # exactly 256 KiB
        ((512, 512, 3, 3), [512, 56, 3, 3], "uint8"),  # the first channels
        ((2048, 3, 16, 16), [341, 3, 16, 16], "uint8"),  # the colours are kept
        ((5000, 1, 16, 16), [1024, 1, 16, 16], "uint8"),  # the first filters
        ((8192, 64, 4, 4), [5461, 3, 4, 4], "uint8"),
        ((9, 1, 256, 256), [4, 1, 256, 256], "uint8"),
        ((1, 1, 256, 256), [1, 1, 256, 256], "float16"),  # the largest filter
        ((32, 1, 31), [32, 1, 31], "float16"),
        ((64, 1, 4000), [64, 1, 4000], "uint8"),
        ((512, 512, 5), [512, 102, 5], "uint8"),
        ((64, 3, 3, 7, 7), [64, 3, 3, 7, 7], "float16"),
        ((64, 64, 3, 7, 7), [64, 27, 3, 7, 7], "uint8"),
    ],
)
def test_how_much_of_a_large_layer_is_stored(shape: Any, stored: list[int], dtype: str) -> None:
    n, c = stored[:2]
    weights = np.zeros(shape, np.float32)
    weights.reshape(len(weights), -1)[:, 0] = 1
    weights[0].flat[-1] = 2
    geometry = {
        **GEOMETRY,
        **dict.fromkeys(("stride", "padding", "dilation"), [1] * len(shape[2:])),
    }
    header, payload = packed(
        weights, geometry=geometry, verdict_bits=bits_of({shape[0] - 1: ["silent"]}, shape[0])
    )
    assert (header["shape"], header["dtype"]) == (stored, dtype)
    assert (header["filters"], header["channels"]) == shape[:2]
    assert header["verdicts"] == {"silent": 1}
    assert len(payload) == 5 * n + math.prod(stored) * (2 if dtype == "float16" else 1)
    found = unpack_snapshot(header, payload)
    assert found.scales[0] == 2
    assert np.allclose(found.weights(), weights[:n, :c], atol=2 * LEVEL)
    assert parse_header(tag_of(header), to_content(header)) == header


def test_invalid_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="too large for the Kernels tab: it has 65,792 weights"):
        packed(np.zeros((1, 1, 257, 256)))
    with pytest.raises(ValueError, match="it has 4,097 weights along one side of its kernels"):
        packed(np.zeros((1, 1, 2**12 + 1)))
    with pytest.raises(ValueError, match="found"):
        packed(np.zeros((2, 3, 1, 1, 1, 1)))
    with pytest.raises(ValueError, match=r"shape \(N, C, kH, kW\), .*; found \(2, 3\)"):
        packed(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="found"):
        packed(np.zeros((0, 3, 3, 3)))
    with pytest.raises(ValueError, match=r"shape \(2,\); found \(3,\)"):
        packed(np.zeros((2, 3, 3, 3)), verdict_bits=np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="JSON"):
        to_content(packed(np.zeros((2, 3, 3, 3)), wall_time=math.nan)[0])


def test_an_event_is_small_in_the_file(tmp_path: Path) -> None:
    """An event of 64x3x7x7 weights, many verdicts and a long name has at most 25 KB in the file."""
    name = "model.backbone.features.stem.conv.parametrizations.weight"
    verdicts = {each: list(VERDICT_NAMES) for each in range(64)}
    sizes = []
    for steps in ([0, 1], [0, 1, 2]):
        folder = tmp_path / str(len(steps))
        with RunWriter(folder) as run:
            for step, weights in random_weights(steps).items():
                run.snapshot(weights, step, name, verdicts=verdicts, probe=DIGEST)
        sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
    assert 18_816 < sizes[1] - sizes[0] <= 25_000


def test_tensorboard_keeps_the_event_unchanged() -> None:
    header, payload = packed(np.ones((2, 1, 3, 3), np.float32))
    value = value_of(header, payload)
    assert value.tag == tag_of(header)
    assert value.metadata.plugin_data.plugin_name == "kernels"
    assert value.metadata.plugin_data.content == to_content(header)
    unpacked = tensor_util.make_ndarray(value.tensor)
    assert unpacked.shape == ()
    assert unpacked.item() == payload


def test_a_photograph_is_stored_as_bytes_and_other_images_exactly() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (3, 9, 7), dtype=np.uint8)
    photograph = levels.astype(np.float32) / np.float32(255)
    header, payload = pack_probe(photograph, name="a.png", digest=DIGEST, attempt=ATTEMPT)
    assert header == {
        "version": 1,
        "kind": "probe",
        "digest": DIGEST,
        "name": "a.png",
        "shape": [3, 9, 7],
        "dtype": "uint8",
        "attempt": ATTEMPT,
    }
    assert tag_of(header) == f"k/probe/{DIGEST}-{ATTEMPT}"
    assert zlib.decompress(payload) == levels.tobytes()
    assert np.array_equal(unpack_probe(header, payload), photograph)
    for other in (photograph * 2, -photograph, photograph + np.float32(1e-7), photograph * 1e30):
        header, payload = pack_probe(other, name="", digest=DIGEST, attempt=ATTEMPT)
        assert header["dtype"] == "float32"
        assert zlib.decompress(payload) == other.astype("<f4").tobytes()
        assert np.array_equal(unpack_probe(header, payload), other)
        assert parse_header(tag_of(header), to_content(header)) == header


def test_the_test_chart_is_stored_exactly() -> None:
    chart = load_probe().image.numpy()
    packed = pack_probe(chart, name="chart", digest=DIGEST, attempt=ATTEMPT)
    assert np.array_equal(unpack_probe(*packed), chart)


def test_an_invalid_probe_is_refused() -> None:
    with pytest.raises(ValueError, match=r"12\.5 MiB"):
        pack_probe(np.zeros((3, 1025, 1064)), name="", digest=DIGEST, attempt=1)
    with pytest.raises(ValueError, match=r"found \(3, 4\)"):
        pack_probe(np.zeros((3, 4)), name="", digest=DIGEST, attempt=1)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "11 bytes|165 are float16|holds 0 bytes"),
        (b"x" * 1000, "holds 1000 bytes instead of .* float16 weights of the shape"),
        (3.0, "holds float instead of packed bytes"),
        (ValueError("odd size"), "cannot unpack it: odd size"),
    ],
)
def test_a_payload_that_does_not_fit_its_header_is_refused(payload: Any, reason: str) -> None:
    header, right = packed(np.ones((2, 1, 3, 3), np.float32))
    check_payload(header, right)
    with pytest.raises(ValueError, match=reason):
        check_payload(header, payload)
    with pytest.raises(ValueError, match="holds"):
        check_payload(header, right[:-1])


def test_a_probe_that_does_not_unpack_to_its_shape_is_refused() -> None:
    header, right = pack_probe(np.ones((1, 8, 8)), name="", digest=DIGEST, attempt=1)
    check_payload(header, right)
    for wrong in (
        b"",
        right[:-1],
        b"no deflate",
        zlib.compress(bytes(63)),
        zlib.compress(bytes(65)),
        zlib.compress(bytes(10**8)),
    ):
        with pytest.raises(ValueError, match="its image does not unpack"):
            check_payload(header, wrong)
