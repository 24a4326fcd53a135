"""Decoding and painting in a browser give the same numbers and pixels as in Python."""

import itertools
import struct
from typing import Any

import numpy as np
import pytest
import torch
from engine_page import Engine
from torch import Tensor

from kernelviz_callback.drawing.colour import diverging
from kernelviz_callback.drawing.tiles import paint_tiles
from kernelviz_callback.filters.measures import largest_magnitude
from kernelviz_callback.probe.probe import CHART, Probe
from kernelviz_callback.tensorboard_plugin.codec import pack_probe, pack_snapshot, unpack_snapshot

pytestmark = pytest.mark.browser

GEOMETRY: dict[str, Any] = {"kind": "Conv2d", "stride": (1, 1), "padding": (0, 0), "groups": 1}
SHAPES = [(5, 1, 3, 3), (4, 2, 5, 5), (64, 3, 7, 7), (7, 3, 1, 4), (3, 8, 3, 2), (1, 1, 1, 1)]


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    strength = torch.rand(shape[0], *[1] * (len(shape) - 1), generator=generator)
    return torch.randn(shape, generator=generator) * strength


def _spoilt(weights: Tensor) -> Tensor:
    """Make weights with difficult filters: zeros, NaN and infinity, very small and very large."""
    spoilt = weights.clone()
    spoilt[0] = 0
    spoilt[-1].view(-1)[::3] = torch.nan
    if len(spoilt) > 3:
        spoilt[1].view(-1)[0] = torch.inf
        spoilt[1].view(-1)[-1] = -torch.inf
        spoilt[2] *= 1e-36
        spoilt[3] *= 1e30
    return spoilt


# Data from the server.

DECODE = """
const layer = {shape};
const decoded = decodePayload(payload, {dtype}, layer);
return {weights: weightsOf(decoded, dtype, shape), scales: decoded.scales, bits: decoded.bits};
"""


@pytest.mark.parametrize("shape", [*SHAPES, (256, 32, 5, 5)])
def test_decoded_payloads_equal_those_of_python(engine: Engine, shape: tuple[int, ...]) -> None:
    weights = _spoilt(_random(*shape)).numpy()
    bits = np.arange(shape[0], dtype=np.uint8) * 7
    header, payload = pack_snapshot(
        weights,
        layer="conv",
        step=0,
        epoch=0,
        wall_time=0.0,
        attempt=0,
        geometry=GEOMETRY | {"dilation": (1, 1)},
        verdict_bits=bits,
    )
    assert header["dtype"] == ("uint8" if shape[1] == 32 else "float16")
    found = engine(DECODE, payload=payload, dtype=header["dtype"], shape=list(shape))
    stored = unpack_snapshot(header, payload)
    np.testing.assert_array_equal(found["weights"], stored.weights().ravel())
    np.testing.assert_array_equal(found["scales"], stored.scales)
    np.testing.assert_array_equal(found["bits"], bits)


def test_every_float16_is_decoded(engine: Engine) -> None:
    patterns = struct.pack("<65536H", *range(65536))
    expected = np.array(struct.unpack("<65536e", patterns), np.float32)
    expected[~np.isfinite(expected)] = np.nan
    payload = struct.pack("<fB", 1.0, 0) + patterns
    found = engine(DECODE, payload=payload, dtype="float16", shape=[1, 1, 256, 256])
    np.testing.assert_array_equal(found["weights"], expected)


def test_a_payload_of_another_length_is_refused(engine: Engine) -> None:
    script = "try {" + DECODE + "} catch (error) { return error.message; }"
    said = engine(script, payload=bytes(58), dtype="float16", shape=[2, 1, 5, 5])
    assert said == "expected 110 bytes for 2x1x5x5 weights; found 58"


@pytest.mark.parametrize("in_levels", [True, False])
def test_probes_are_inflated(engine: Engine, in_levels: bool) -> None:
    image = np.random.default_rng(1).random((3, 9, 13), np.float32)
    if in_levels:
        image = (np.rint(image * 255) / 255).astype(np.float32)
    header, payload = pack_probe(image, name="photo.png", digest="d", attempt=0)
    assert header["dtype"] == ("uint8" if in_levels else "float32")
    found = engine("return decodeProbe(payload, probe)", payload=payload, probe=dict(header))
    assert (found["name"], found["shape"]) == ("photo.png", [3, 9, 13])
    np.testing.assert_array_equal(found["planes"], image.ravel())


@pytest.mark.parametrize(("name", "planes"), [(CHART, 3), ("photo.png", 3), ("grey", 1), ("x", 5)])
@pytest.mark.parametrize("channels", [1, 3, 5, 16])
def test_probes_fit_the_same_layers_as_in_python(
    engine: Engine, name: str, planes: int, channels: int
) -> None:
    probe = Probe(_random(planes, 6, 7).abs(), name)
    found = engine(
        "return probeForChannels({name, shape, planes}, channels)",
        name=name,
        shape=[planes, 6, 7],
        planes=probe.image,
        channels=channels,
    )
    try:
        expected = probe.for_channels(channels)
    except ValueError:
        assert found is None
    else:
        np.testing.assert_allclose(found, expected.numpy().ravel(), atol=1e-7)


@pytest.mark.parametrize(("size", "expected"), [(224, [3, 40, 60]), (15, [3, 10, 15])])
def test_an_image_of_the_user_becomes_a_probe(
    engine: Engine, size: int, expected: list[int]
) -> None:
    levels = np.full((40, 60, 4), 255, np.uint8)
    levels[..., :3] = np.random.default_rng(2).integers(0, 256, (40, 60, 3))
    levels[:, 30:, :3] = (10, 20, 30)
    found = engine(
        """const image = new ImageData(new Uint8ClampedArray(levels), 60, 40);
        return probeOfBitmap(await createImageBitmap(image), size, "mine.png");""",
        levels=levels,
        size=size,
    )
    assert (found["name"], found["shape"]) == ("mine.png", expected)
    planes = found["planes"].reshape(expected) * 255
    if size == 224:  # never enlarged
        np.testing.assert_allclose(planes, levels[..., :3].transpose(2, 0, 1), atol=1e-4)
    else:
        np.testing.assert_allclose(planes[:, :, -5:].mean((1, 2)), (10, 20, 30), atol=0.5)
        blocks = levels[..., :3].astype(float).reshape(10, 4, 15, 4, 3).mean((1, 3))
        difference = planes - blocks.transpose(2, 0, 1)
        assert np.abs(difference[:, :, :7]).mean() < 12  # of 74 a pixel: no pixel is skipped


# Pixels.


def test_colours_equal_those_of_pictures(engine: Engine) -> None:
    expected = diverging(torch.arange(256, dtype=torch.uint8)[None])[:, 0].T
    np.testing.assert_array_equal(engine("return COLOURS"), expected.numpy().ravel())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", ["filter", "layer", 0.37, 1e31])
@pytest.mark.parametrize("is_spoilt", [False, True])
def test_tiles_equal_those_of_the_grid(
    engine: Engine, shape: tuple[int, int, int, int], scale: Any, is_spoilt: bool
) -> None:
    weights = _spoilt(_random(*shape)) if is_spoilt else _random(*shape)
    own = largest_magnitude(weights)
    common = (
        own.amax()
        if scale == "layer"
        else own.amax().clamp(min=float(scale if scale != "filter" else 0))
    )
    ends = own if scale == "filter" else common.expand(len(weights))
    modes: list[Any] = ["rgb", "all", *range(shape[1])]
    found = engine(
        """const ranges = halfRanges(values, shape, scale);
        const pictures = modes.flatMap((channel) => [1, 4].map((zoom) => {
          const {width, height} = tileSize(shape, channel);
          const layout = atlasLayout(shape[0], width * zoom, height * zoom);
          return {layout, pixels: paintAtlas(values, shape, ranges, {channel, zoom})};
        }));
        return {ranges, pictures, isSpoilt: hasNonFinite(values)};""",
        values=weights,
        shape=list(shape),
        scale=scale,
        modes=modes,
    )
    assert found["isSpoilt"] == is_spoilt
    np.testing.assert_array_equal(found["ranges"], ends.numpy())
    for (mode, zoom), picture in zip(
        itertools.product(modes, [1, 4]), found["pictures"], strict=True
    ):
        part = weights if isinstance(mode, str) else weights[:, mode : mode + 1]
        is_rgb = mode == "rgb" and shape[1] == 3
        bad = ~part.isfinite() if is_spoilt else None
        painted = paint_tiles(part, ends, is_rgb=is_rgb, zoom=zoom, non_finite=bad)
        tiles = _tiles(picture)[: len(weights)]
        rules = _rules(part.shape, zoom, is_rgb=is_rgb)
        drawn = tiles[:, :, :, ~rules]
        np.testing.assert_array_equal(drawn[:, :3], _ruled_once(painted, part.shape, zoom, is_rgb))
        assert (drawn[:, 3] == 255).all()
        assert (tiles[:, 3, :, rules] == 0).all()


def _tiles(picture: dict[str, Any]) -> np.ndarray:
    """Cut the tiles out of an atlas, shape (N, 4, H, W)."""
    layout, pixels = picture["layout"], picture["pixels"]
    assert pixels.shape == (layout["height"], layout["width"], 4)
    height, width = layout["tileHeight"], layout["tileWidth"]
    rows, columns = layout["rows"], layout["columns"]
    tiles = pixels.reshape(rows, height, columns, width, 4).transpose(0, 2, 4, 1, 3)
    return tiles.reshape(rows * columns, 4, height, width)


def _rules(shape: torch.Size, zoom: int, *, is_rgb: bool) -> np.ndarray:
    """Find the columns between the planes of a tile. They are as wide as a weight, at any zoom."""
    planes = 1 if is_rgb else shape[1]
    columns = np.arange(planes * (shape[3] + 1) - 1) % (shape[3] + 1) == shape[3]
    return np.repeat(columns, zoom)


def _ruled_once(painted: Tensor, shape: torch.Size, zoom: int, is_rgb: bool) -> np.ndarray:
    """Call `paint_tiles` and remove the gaps between planes, which are one pixel wide."""
    planes = 1 if is_rgb else shape[1]
    wide = shape[3] * zoom
    keep = np.arange(painted.shape[2]) % (wide + 1) != wide if planes > 1 else slice(None)
    return painted.movedim(-1, 1).numpy()[:, :, :, keep]


def test_an_atlas_reuses_its_picture(engine: Engine) -> None:
    first, second = _random(6, 3, 5, 5), _spoilt(_random(6, 3, 5, 5, seed=1))
    same, pixels, fresh = engine(
        """const ranges = halfRanges(first, shape, "filter");
        const paint = (values, into) => paintAtlas(values, shape, ranges, {into});
        const picture = paint(first, null), small = new ImageData(3, 3);
        return [paint(second, picture) === picture, picture, paint(second, small)];""",
        first=first,
        second=second,
        shape=[6, 3, 5, 5],
    )
    assert same
    np.testing.assert_array_equal(pixels, fresh)


def test_levels_are_rounded_like_those_of_torch(engine: Engine) -> None:
    half_way = torch.arange(-127, 127).float() + 0.5
    beside = torch.nextafter(half_way, torch.full_like(half_way, torch.inf))
    values = torch.cat([half_way, beside, half_way * 0.1, half_way / 3]).reshape(4, 1, 1, -1)
    ends = torch.tensor([127.0, 127.0, 12.7, 127 / 3])
    found = engine(
        "return paintAtlas(values, [4, 1, 1, 254], ranges, {})", values=values, ranges=ends
    )
    expected = paint_tiles(values, ends, is_rgb=False)[:, 0]
    np.testing.assert_array_equal(found[..., :3], expected.numpy())


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_rounding_errors_are_not_shown_as_change(engine: Engine, dtype: str) -> None:
    weights = _random(64, 3, 5, 5)
    scales = largest_magnitude(weights)
    shares = weights / scales[:, None, None, None]
    moved = (
        shares + (torch.rand(shares.shape, generator=torch.Generator().manual_seed(1)) - 0.5) * 1e-5
    )
    stored = [
        s.half().float() if dtype == "float16" else (s * 127).round() / 127 for s in (shares, moved)
    ]
    one, other = (s * scales[:, None, None, None] for s in stored)
    levels, changed = engine(
        """const change = difference(one, other);
        const floor = differenceFloor(scales, dtype);
        const ranges = halfRanges(change, shape, "filter", {floor});
        const { data } = paintAtlas(change, shape, ranges, {});
        return [data.filter((_, at) => at % 4 < 3), change];""",
        one=one,
        other=other,
        scales=scales,
        dtype=dtype,
        shape=[64, 3, 5, 5],
    )
    np.testing.assert_array_equal(changed, (one - other).numpy().ravel())
    assert changed.any()
    assert np.abs(levels.astype(int) - 128).max() <= 127 // 16 + 1
