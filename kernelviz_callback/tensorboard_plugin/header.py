"""The header of an event: JSON beside its tag, which describes the event without its payload.

Each tag holds one event, so the tags and headers of a run are its whole timeline, without any
weights. Event files may come from untrusted sources, so every field of a header is checked.
"""

import json
import math
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, cast

from kernelviz_callback.drawable import why_not_drawable
from kernelviz_callback.health.verdict_names import VERDICT_NAMES

VERSION = 1
# Usual limit for the weights of a layer at one step. TensorBoard keeps everything in memory, and
# its writer takes 0.1 microseconds for each byte.
USUAL_DATA_BYTES = 2**18
# Limit for a layer with a single kernel that is larger than the usual limit.
MOST_DATA_BYTES = 2**20
# Limit for a probe before compression: a photograph of 1024x1024 as float32.
MOST_PROBE_BYTES = 3 * 2**22
ITEM_BYTES = {"uint8": 1, "float16": 2, "float32": 4}

_DIMENSIONS = (1, 2, 3)  # of a convolution
_LARGEST_COUNT = 2**53 - 1  # JavaScript is exact for whole numbers up to here
_LONGEST_TEXT = 1_000  # characters of a name; no layer has a longer one
_LONGEST_PROBE_SIDE = 2**14  # pixels and channels


class _Optional(TypedDict, total=False):
    stored_only: bool


class SnapshotHeader(_Optional):
    """One layer at one step.

    ``shape`` is the shape of the weights in the event: (n, c, kH, kW), or (n, c, k) for a 1-D
    layer, or (n, c, kD, kH, kW) for a 3-D layer. ``filters`` and ``channels`` are the numbers in
    the layer, which may be larger. ``training`` identifies the training, in all its attempts.
    ``attempt`` is the time at which this attempt began, in milliseconds since 1970, and
    ``began_at`` the step: the later steps of earlier attempts were discarded. ``drift`` is the
    drift of the whole layer from the first snapshot. ``verdicts`` counts its filters by verdict,
    without zeros. ``drift`` and ``verdicts`` are None if they are not known. ``stored_only`` is
    there, and True, if the layer may multiply its input with other weights than these.
    """

    version: int
    kind: Literal["snapshot"]
    layer: str
    step: int
    epoch: int
    wall_time: float
    training: str
    attempt: int
    began_at: int
    shape: list[int]
    filters: int
    channels: int
    dtype: Literal["float16", "uint8"]
    geometry: dict[str, Any]
    probe: str | None
    drift: float | None
    verdicts: dict[str, int] | None


class ProbeHeader(TypedDict):
    """The image that responses are computed from; ``shape`` is (channels, height, width)."""

    version: int
    kind: Literal["probe"]
    digest: str
    name: str
    shape: list[int]
    dtype: Literal["float32", "uint8"]
    attempt: int


Header: TypeAlias = SnapshotHeader | ProbeHeader


def tag_of(header: Header) -> str:
    """Return the tag of the event in TensorBoard; no two events share a tag."""
    if header["kind"] == "probe":
        return f"k/probe/{header['digest']}-{header['attempt']}"
    return f"k/{header['layer']}/weights/{header['step']:010d}-{header['attempt']}"


def id_of(header: SnapshotHeader) -> str:
    """Return the id of a snapshot, which is unique in its layer."""
    return f"{header['step']}-{header['attempt']}"


def data_length(header: Header) -> int:
    """Return the bytes of the weights or planes, before compression."""
    return math.prod(header["shape"]) * ITEM_BYTES[header["dtype"]]


def to_content(header: Header) -> bytes:
    """Encode the header as it is stored."""
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def parse_header(tag: str, content: bytes) -> Header:
    """Read a header and check every field.

    Raises:
        ValueError: If it is not what `to_content` writes under this tag. The message says what is
            wrong.
    """
    fields = _object_of(content)
    version = fields.get("version")
    if version != VERSION or type(version) is not int:
        raise ValueError(
            f"its header has the version {_short(version)}; this TensorBoard reads {VERSION}: "
            "upgrade kernelviz-callback where TensorBoard runs"
        )
    kind = fields.get("kind")
    if kind not in ("snapshot", "probe"):
        raise ValueError(f'its header is of the kind {_short(kind)}, not "snapshot" or "probe"')
    _check_fields(fields, _SNAPSHOT_FIELDS if kind == "snapshot" else _PROBE_FIELDS)
    header = cast(Header, fields)
    if header["kind"] == "snapshot":
        _check_counts(header)
    elif max(header["shape"]) > _LONGEST_PROBE_SIDE:
        raise ValueError(f"its shape {_short(header['shape'])} exceeds the size limit")
    most = MOST_DATA_BYTES if header["kind"] == "snapshot" else MOST_PROBE_BYTES
    if data_length(header) > most:
        raise ValueError(f"its shape {_short(header['shape'])} exceeds the size limit")
    if tag_of(header) != tag:
        raise ValueError(f"its header belongs to the tag {_short(tag_of(header))}")
    return header


def _object_of(content: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(content.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is not JSON: {_short(str(error))}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"its header is {_short(fields)}, not a JSON object")
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _check_fields(
    fields: Mapping[str, Any], expected: Mapping[str, tuple[str, Callable[[Any], bool]]]
) -> None:
    if missing := expected.keys() - _Optional.__annotations__.keys() - fields.keys():
        raise ValueError(f"its header lacks {sorted(missing)}")
    if unknown := fields.keys() - expected.keys():
        raise ValueError(f"its header has {_short(sorted(unknown))}, which are unknown")
    for name, (wanted, is_right) in expected.items():
        if name in fields and not is_right(fields[name]):
            raise ValueError(f"its {name} is {_short(fields[name])}, not {wanted}")


def _check_counts(header: SnapshotHeader) -> None:
    stored, whole = header["shape"][:2], [header["filters"], header["channels"]]
    if stored[0] > whole[0] or stored[1] > whole[1]:
        raise ValueError(f"it holds {stored} filters and channels of a layer that has {whole}")
    too_large = why_not_drawable([*whole, *header["shape"][2:]])
    if too_large is not None:
        raise ValueError(f"its layer is too large: {too_large}")
    dimensions, geometry = len(header["shape"]) - 2, header["geometry"]
    sides = [geometry[name] for name in ("stride", "padding", "dilation")]
    if any(len(each) != dimensions for each in sides if isinstance(each, list)):
        raise ValueError(
            f"its kernels have {dimensions} dimensions; its geometry has a different number"
        )
    if header["filters"] % geometry["groups"]:
        raise ValueError(f"its {header['filters']} filters cannot have {geometry['groups']} groups")
    for name, count in (header["verdicts"] or {}).items():
        if count > header["filters"]:
            raise ValueError(f"its verdict {name} counts {count} of {header['filters']} filters")


def _short(value: object) -> str:
    return value if isinstance(value, str) and len(value) < 80 else reprlib.repr(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_COUNT


def _is_finite(value: object) -> bool:
    # math.isfinite would raise for a whole number that is too large for a float.
    return type(value) in (int, float) and abs(cast(float, value)) <= sys.float_info.max


def _is_drift(value: object) -> bool:
    return value is None or (_is_finite(value) and cast(float, value) >= 0)


def _are_counts(value: object, lengths: Sequence[int], least: int = 1) -> bool:
    return (
        isinstance(value, list)
        and len(value) in lengths
        and all(_is_count(each) and each >= least for each in value)
    )


def _are_verdicts(value: object) -> bool:
    return isinstance(value, dict) and all(
        name in VERDICT_NAMES and _is_count(count) for name, count in value.items()
    )


def _is_geometry(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    padding = value.get("padding")
    return (
        value.keys() == {"kind", "stride", "padding", "dilation", "groups"}
        and _is_text(value["kind"])
        and _are_counts(value["stride"], _DIMENSIONS)
        and (_is_text(padding) or _are_counts(padding, _DIMENSIONS, least=0))
        and _are_counts(value["dilation"], _DIMENSIONS)
        and _is_count(value["groups"])
        and value["groups"] > 0
    )


def _one_of(names: Sequence[str]) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {list(names)}", lambda value: isinstance(value, str) and value in names


_COUNT = ("a whole number from 0", _is_count)
_TEXT = (f"a text of at most {_LONGEST_TEXT:,} characters", _is_text)
_SNAPSHOT_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "version": _COUNT,
    "kind": _TEXT,
    "layer": _TEXT,
    "step": _COUNT,
    "epoch": _COUNT,
    "wall_time": ("a time in seconds", _is_finite),
    "training": _TEXT,
    "attempt": _COUNT,
    "began_at": _COUNT,
    "shape": ("three to five whole numbers from 1", lambda value: _are_counts(value, (3, 4, 5))),
    "filters": _COUNT,
    "channels": _COUNT,
    "dtype": _one_of(["float16", "uint8"]),
    "geometry": ("a geometry", _is_geometry),
    "probe": ("a digest or null", lambda value: value is None or _is_text(value)),
    "drift": ("a number from 0 or null", _is_drift),
    "verdicts": ("null or verdicts", lambda value: value is None or _are_verdicts(value)),
    "stored_only": ("true", lambda value: value is True),
}
_PROBE_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "version": _COUNT,
    "kind": _TEXT,
    "digest": _TEXT,
    "name": _TEXT,
    "shape": ("three whole numbers from 1", lambda value: _are_counts(value, (3,))),
    "dtype": _one_of(["float32", "uint8"]),
    "attempt": _COUNT,
}
