"""The headers of our events: their fields, and the rejection of everything else."""

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from tab_runs import ATTEMPT, DIGEST, bits_of, packed
from torch import nn

from kernelviz_callback.model.convolutions import geometry_of
from kernelviz_callback.tensorboard_plugin.codec import pack_probe
from kernelviz_callback.tensorboard_plugin.header import parse_header, tag_of, to_content


def test_a_header_is_compact_json_with_what_the_timeline_needs() -> None:
    geometry = geometry_of(nn.Conv2d(3, 4, 3, padding="same", dilation=2)).to_dict()
    bits = bits_of({0: ["duplicate", "frozen"], 2: ["duplicate"]}, 4)
    weights = np.ones((4, 3, 3, 3), np.float32)
    about = {"training": "abc", "began_at": 5, "drift": 0.25, "probe": DIGEST}
    header, _ = packed(weights, geometry=geometry, verdict_bits=bits, layer="a.b/ü", **about)
    assert json.loads(to_content(header).decode()) == {
        "version": 1,
        "kind": "snapshot",
        "layer": "a.b/ü",
        "step": 7,
        "epoch": 1,
        "wall_time": 1.5,
        "training": "abc",
        "attempt": ATTEMPT,
        "began_at": 5,
        "shape": [4, 3, 3, 3],
        "filters": 4,
        "channels": 3,
        "dtype": "float16",
        "geometry": {**geometry, "stride": [1, 1], "dilation": [2, 2]},
        "probe": DIGEST,
        "drift": 0.25,
        "verdicts": {"duplicate": 2, "frozen": 1},
    }
    assert b": " not in to_content(header)
    assert tag_of(header) == f"k/a.b/ü/weights/0000000007-{ATTEMPT}"
    assert parse_header(tag_of(header), to_content(header)) == header
    assert packed(weights)[0]["verdicts"] is None
    assert packed(weights, verdict_bits=np.zeros(4, np.uint8))[0]["verdicts"] == {}


SNAPSHOT = packed(np.ones((4, 3, 3, 3), np.float32), probe=DIGEST)[0]
PROBE = pack_probe(np.ones((1, 8, 8)), name="a", digest=DIGEST, attempt=1)[0]
BEYOND = 2**53


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *[("version", each) for each in (2, 0, "1", True, 1.0, None)],
        *[("kind", each) for each in ("weights", None, ["snapshot"], {})],
        *[("layer", each) for each in (None, 3, ["conv1"], "conv2")],
        *[("step", each) for each in (-1, 8, 7.0, "7", True, BEYOND, None)],
        *[("epoch", each) for each in (-1, 0.5, None)],
        *[("wall_time", each) for each in ("now", None, True, [1], 10**400, -(10**400))],
        *[("attempt", each) for each in (-1, 5, 1e3, None)],
        *[("began_at", each) for each in (-1, 0.5, True, None)],
        *[("training", each) for each in (1, None, [])],
        *[("drift", each) for each in (-0.1, True, "1", [], 10**400)],
        *[("shape", each) for each in (None, [4, 3, 3], [4, 3, 3, 0], [4, 3, 3, 3.0], "4333")],
        *[("shape", each) for each in ([4, 3, 3, BEYOND], [4, 3, 10**4, 10**4], [5, 3, 3, 3])],
        *[("shape", each) for each in ([4, 3], [4, 3, 3, 3, 3, 3], [4, 3, 3, 3, 3])],
        *[("filters", each) for each in (3, -4, None, "4")],
        *[("channels", each) for each in (2, 3.5, None)],
        *[("stored_only", each) for each in (False, 1, None, "yes")],
        *[("dtype", each) for each in ("float32", None, ["float16"], "")],
        *[("geometry", each) for each in (None, {}, [], {**SNAPSHOT["geometry"], "more": 1})],
        *[
            ("geometry", {**SNAPSHOT["geometry"], name: wrong})
            for name, wrong in (
                ("kind", 1),
                ("stride", 1),
                ("stride", [0, 1]),
                ("padding", [1]),
                ("padding", [-1, 0]),
                ("padding", None),
                ("dilation", [1, 1, 1]),
                ("groups", 0),
                ("groups", "1"),
            )
        ],
        *[("probe", each) for each in (3, [DIGEST])],
        *[("verdicts", each) for each in ([], {"tired": 1}, {"silent": -1}, {"silent": 5}, 0)],
    ],
)
def test_a_header_is_read_strictly(field: str, wrong: object) -> None:
    content = json.dumps({**SNAPSHOT, field: wrong}).encode()
    with pytest.raises(ValueError, match=r"^its|^it holds"):
        parse_header(tag_of(SNAPSHOT), content)


@pytest.mark.parametrize(
    ("shape", "whole", "reason"),
    [
        ([200_000, 1, 1, 1], [200_000, 1], "200,000 filters; at most 8,192"),
        ([4, 3, 1, 1], [200_000, 3], "200,000 filters"),
        ([1, 1, 1_000_000], [1, 1], "1,000,000 weights along one side of its kernels"),
        ([1, 1_000_000, 1, 1], [1, 1_000_000], "1,000,000 input channels"),
        ([1, 1, 1000, 1000], [1, 1], "1,000,000 weights in each filter; at most 65,536"),
    ],
)
def test_a_layer_that_would_freeze_the_page_is_refused(
    shape: list[int], whole: list[int], reason: str
) -> None:
    sides = [1] * (len(shape) - 2)
    geometry = {**SNAPSHOT["geometry"], **dict.fromkeys(("stride", "padding", "dilation"), sides)}
    filters, channels = whole
    about = {"shape": shape, "filters": filters, "channels": channels, "verdicts": None}
    header: Any = {**SNAPSHOT, **about, "dtype": "uint8", "geometry": geometry}
    with pytest.raises(ValueError, match=f"its layer is too large: it has {reason}"):
        parse_header(tag_of(header), to_content(header))


def test_names_of_any_length_and_groups_that_do_not_divide_the_filters_are_refused() -> None:
    long: Any = {**SNAPSHOT, "layer": "x" * 10**6}
    with pytest.raises(ValueError, match=r"its layer is .*, not a text of at most") as caught:
        parse_header(tag_of(long), to_content(long))
    assert len(str(caught.value)) < 200
    grouped: Any = {**SNAPSHOT, "geometry": {**SNAPSHOT["geometry"], "groups": 3}}
    with pytest.raises(ValueError, match="its 4 filters cannot have 3 groups"):
        parse_header(tag_of(grouped), to_content(grouped))
    wide: Any = {**PROBE, "shape": [1, 1, 2**20]}
    with pytest.raises(ValueError, match="exceeds the size limit"):
        parse_header(tag_of(wide), to_content(wide))


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_the_header_of_a_convolution_of_any_dimensions(kind: Any) -> None:
    conv = kind(3, 4, 5, padding=2)
    weights = conv.weight.detach().numpy()
    header, _ = packed(weights, geometry=geometry_of(conv).to_dict())
    assert header["shape"] == list(weights.shape)
    assert parse_header(tag_of(header), to_content(header)) == header
    sides = [1] * (len(weights.shape) - 2)
    for name in ("stride", "padding", "dilation"):
        wrong = {**header["geometry"], name: [*sides, 1] if len(sides) < 3 else sides[:-1]}
        content = json.dumps({**header, "geometry": wrong}).encode()
        with pytest.raises(ValueError, match=f"its kernels have {len(sides)} dimensions"):
            parse_header(tag_of(header), content)


@pytest.mark.parametrize("header", [SNAPSHOT, PROBE])
def test_a_header_has_all_its_fields_and_no_others(header: Any) -> None:
    for field in header:
        rest = {name: value for name, value in header.items() if name != field}
        with pytest.raises(ValueError, match=f"{field}|not JSON|version|kind"):
            parse_header(tag_of(header), json.dumps(rest).encode())
    with pytest.raises(ValueError, match="more"):
        parse_header(tag_of(header), json.dumps({**header, "more": 1}).encode())
    with pytest.raises(ValueError, match="belongs to the tag"):
        parse_header("k/elsewhere", to_content(header))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("shape", [1, 8]),
        ("shape", [1, 8, 10**7]),
        ("dtype", "float16"),
        ("name", 3),
        ("digest", None),
        ("digest", "e" * 64),
    ],
)
def test_the_header_of_a_probe_is_read_strictly(field: str, wrong: object) -> None:
    with pytest.raises(ValueError, match=r"^its"):
        parse_header(tag_of(PROBE), json.dumps({**PROBE, field: wrong}).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\x01",
        b"\xff\xfe",
        b"null",
        b"[1]",
        b'"text"',
        b"{",
        b"[" * 100_000,
        b'{"version": NaN}',
        b'{"version": ' + b"9" * 5000 + b"}",
        to_content(SNAPSHOT).replace(b"1.5", b"1e999"),
        to_content(SNAPSHOT).replace(b"1.5", b"Infinity"),
    ],
)
def test_invalid_headers_are_refused_with_a_short_reason(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^its") as caught:
        parse_header(tag_of(SNAPSHOT), content)
    assert len(str(caught.value)) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.sampled_from([SNAPSHOT, PROBE]), st.data())
def test_any_invalid_header_raises_a_value_error(header: Any, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from([*header]))
    content = json.dumps({**header, field: data.draw(JSON)}).encode()
    for each in (content, data.draw(st.binary(max_size=30)), json.dumps(data.draw(JSON)).encode()):
        with contextlib.suppress(ValueError):
            parse_header(tag_of(header), each)
