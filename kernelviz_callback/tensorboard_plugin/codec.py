"""Convert weights and probes to the bytes in an event file, and back.

The payload of a snapshot is little endian and has three parts:

1. ``scales``, float32[n]: the largest finite magnitude of each filter.
2. ``verdict_bits``, uint8[n]: bit b is set if the filter has the verdict ``VERDICT_NAMES[b]``.
3. The weights divided by the scale of their filter: [n, c, h, w], or [n, c, k] for a 1-D layer, or
   [n, c, d, h, w] for a 3-D layer. They are float16, or uint8 as in `colour.to_levels`: -1 is
   stored as 1, zero as 128, and +1 as 255. In uint8, a value that is not finite is stored as 0.

The payload of a probe holds its planes, [C, H, W], compressed with zlib (RFC 1950). Each value is
multiplied by 255 and stored as uint8 if that loses nothing; otherwise it is stored as float32.

`kernelviz_callback.tensorboard_plugin.header` defines the size limits.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING

from kernelviz_callback.drawable import why_not_drawable
from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.tensorboard_plugin.header import (
    MOST_PROBE_BYTES,
    USUAL_DATA_BYTES,
    VERSION,
    Header,
    ProbeHeader,
    SnapshotHeader,
    data_length,
    tag_of,
    to_content,
)

PLUGIN_NAME = "kernels"

_ZERO_LEVEL = 128  # the 8-bit number for zero; the ends of the scale are 127 levels away
_BYTES_A_FILTER = 5  # for the scale and the verdicts of a filter
_RGB = 3


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a layer in the format of an event, see the docstring of the module.

    Attributes:
        scales: Shape (n,), float32.
        verdict_bits: Shape (n,), uint8.
        data: Shape (n, c, h, w), (n, c, k) or (n, c, d, h, w), float16 or uint8.
    """

    scales: npt.NDArray[np.float32]
    verdict_bits: npt.NDArray[np.uint8]
    data: npt.NDArray[np.float16] | npt.NDArray[np.uint8]

    def weights(self) -> npt.NDArray[np.float32]:
        """Decode the weights: float32, in the shape of ``data``; NaN where they are not finite."""
        shares = self.data.astype(np.float32)
        if self.data.dtype == np.uint8:
            shares = np.where(self.data == 0, np.nan, (shares - _ZERO_LEVEL) / 127)
        shares[~np.isfinite(shares)] = np.nan
        return (shares * _broadcast(self.scales, shares)).astype(np.float32)


def pack_snapshot(
    weights: npt.NDArray[np.floating[Any]],
    *,
    layer: str,
    step: int,
    epoch: int,
    wall_time: float,
    attempt: int,
    geometry: Mapping[str, Any],
    training: str = "",
    began_at: int = 0,
    probe: str | None = None,
    drift: float | None = None,
    verdict_bits: npt.NDArray[np.uint8] | None = None,
    stored_only: bool = False,
    room: int = USUAL_DATA_BYTES,
) -> tuple[SnapshotHeader, bytes]:
    """Pack a layer at one step, with 16 bits for each weight, or with 8 bits if 16 do not fit.

    16 bits keep 11 significant bits of a weight. If 8 bits do not fit either, only the first
    channels are packed: at least three, if three kernels fit. If that is not enough, only the first
    filters are packed.

    Args:
        weights: Filters, shape (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW), floating point,
            not modified.
        layer: Name of the layer.
        step: ``trainer.global_step``.
        epoch: Number of the epoch, from 0.
        wall_time: Seconds since 1970.
        attempt: Time at which this attempt began, in milliseconds since 1970. From its step
            ``began_at`` on, an attempt replaces the earlier attempts of the same training.
        geometry: Result of `Geometry.to_dict`.
        training: Identifier of the training, the same in all its attempts.
        began_at: Step at which this attempt began.
        probe: `Probe.digest`, or None without a probe.
        drift: Distance of the layer's weights from those in the first snapshot, divided by the norm
            of the latter. None or NaN if it was not computed.
        verdict_bits: Shape (N,), uint8. Bit b is set if the filter has the verdict
            ``VERDICT_NAMES[b]``. None if the filters were not examined.
        stored_only: Whether the layer may multiply its input with other weights than these.
        room: Largest number of bytes for the weights. A single kernel may be larger.

    Returns:
        The header and the payload.

    Raises:
        ValueError: If the shape is not supported, if the layer is too large to be drawn, or if
            ``verdict_bits`` have another shape.
    """
    if weights.ndim not in (3, 4, 5) or 0 in weights.shape:
        raise ValueError(
            "weights need the shape (N, C, kH, kW), (N, C, k) or (N, C, kD, kH, kW); found "
            f"{weights.shape}"
        )
    too_large = why_not_drawable(weights.shape)
    if too_large is not None:
        raise ValueError(f"the layer is too large for the Kernels tab: {too_large}")
    filters, channels, *kernel = weights.shape
    is_large = 2 * weights.size > room
    dtype: Literal["float16", "uint8"] = "uint8" if is_large else "float16"
    kept_filters, kept_channels = _fitting_size(weights.shape, room)
    if verdict_bits is not None and verdict_bits.shape != (filters,):
        raise ValueError(f"verdict_bits need the shape ({filters},); found {verdict_bits.shape}")
    header: SnapshotHeader = {
        "version": VERSION,
        "kind": "snapshot",
        "layer": layer,
        "step": int(step),
        "epoch": int(epoch),
        "wall_time": float(wall_time),
        "training": training,
        "attempt": int(attempt),
        "began_at": int(began_at),
        "shape": [kept_filters, kept_channels, *kernel],
        "filters": filters,
        "channels": channels,
        "dtype": dtype,
        "geometry": {k: list(v) if isinstance(v, tuple) else v for k, v in geometry.items()},
        "probe": probe,
        "drift": float(drift) if drift is not None and math.isfinite(drift) else None,
        "verdicts": None if verdict_bits is None else _counts(verdict_bits),
    }
    if stored_only:
        header["stored_only"] = True
    bits = np.zeros(filters, np.uint8) if verdict_bits is None else verdict_bits
    with np.errstate(all="ignore"):
        stored = np.asarray(weights[:kept_filters], np.float32)
        scales = _largest_magnitudes(stored)
        shares = stored[:, :kept_channels] / _broadcast(scales + (scales == 0), stored)
        data = _to_levels(shares) if is_large else shares.astype("<f2")
    parts = (scales.astype("<f4"), bits[:kept_filters].astype(np.uint8), data)
    return header, b"".join(part.tobytes() for part in parts)


def unpack_snapshot(header: SnapshotHeader, payload: bytes) -> StoredWeights:
    """Unpack a payload of `pack_snapshot`.

    Raises:
        ValueError: If the payload does not have the length that the header requires.
    """
    check_payload(header, payload)
    filters = header["shape"][0]
    dtype: Any = "<f2" if header["dtype"] == "float16" else np.uint8
    return StoredWeights(
        np.frombuffer(payload, "<f4", filters),
        np.frombuffer(payload, np.uint8, filters, offset=4 * filters),
        np.frombuffer(payload, dtype, offset=_BYTES_A_FILTER * filters).reshape(header["shape"]),
    )


def pack_probe(
    image: npt.NDArray[np.floating[Any]], *, name: str, digest: str, attempt: int
) -> tuple[ProbeHeader, bytes]:
    """Pack the probe without loss.

    Args:
        image: Shape (C, H, W), floating point, not modified.
        name: `Probe.name`.
        digest: `Probe.digest`.
        attempt: Time at which this attempt began, in milliseconds since 1970.

    Returns:
        The header and the payload.

    Raises:
        ValueError: If the shape is not supported, or the image is larger than 12 MiB.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"a probe needs the shape (C, H, W); found {image.shape}")
    planes = np.asarray(image, "<f4")
    if planes.nbytes > MOST_PROBE_BYTES:
        raise ValueError(
            f"the probe of shape {image.shape} has {planes.nbytes / 2**20:.1f} MiB, and the Kernels"
            f" tab takes at most {MOST_PROBE_BYTES // 2**20} MiB; pass a smaller image"
        )
    with np.errstate(all="ignore"):
        levels = np.clip(np.rint(planes * 255), 0, 255).astype(np.uint8)
    is_exact = np.array_equal(levels / np.float32(255), planes)
    header: ProbeHeader = {
        "version": VERSION,
        "kind": "probe",
        "digest": digest,
        "name": name,
        "shape": [*image.shape],
        "dtype": "uint8" if is_exact else "float32",
        "attempt": int(attempt),
    }
    return header, zlib.compress((levels if is_exact else planes).tobytes())


def unpack_probe(header: ProbeHeader, payload: bytes) -> npt.NDArray[np.float32]:
    """Unpack a payload of `pack_probe`.

    Returns:
        The image, shape (C, H, W), float32.

    Raises:
        ValueError: If the payload does not hold the image that the header describes.
    """
    planes = _inflate(payload, data_length(header))
    dtype = np.dtype("<f4" if header["dtype"] == "float32" else np.uint8)
    image: npt.NDArray[np.float32] = np.frombuffer(planes, dtype).astype(np.float32)
    image = image.reshape(header["shape"])
    return image / np.float32(255) if header["dtype"] == "uint8" else image


def check_payload(header: Header, payload: object) -> None:
    """Check that a payload fits its header.

    Args:
        header: Header of the event.
        payload: Content of the event, of any type; or an exception that was raised when the content
            was read.

    Raises:
        ValueError: If the payload does not fit. The message describes what the event holds.
    """
    if isinstance(payload, Exception):
        raise ValueError(f"TensorBoard cannot unpack it: {payload}")
    if not isinstance(payload, bytes):
        raise ValueError(f"it holds {type(payload).__name__} instead of packed bytes")
    if header["kind"] == "probe":
        _inflate(payload, data_length(header))
        return
    expected = _BYTES_A_FILTER * header["shape"][0] + data_length(header)
    if len(payload) != expected:
        raise ValueError(
            f"it holds {len(payload)} bytes instead of {expected} for {header['dtype']} weights of "
            f"the shape {header['shape']}"
        )


def value_of(header: Header, payload: bytes) -> Summary.Value:
    """Make a summary value for TensorBoard: ``value_of(*pack_snapshot(...))``."""
    about = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=to_content(header)),
        data_class=DATA_CLASS_TENSOR,
    )
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[payload])
    return Summary.Value(tag=tag_of(header), metadata=about, tensor=tensor)


def _fitting_size(shape: tuple[int, ...], room: int) -> tuple[int, int]:
    """Return how many filters and channels fit with 8 bits for each weight, at least one kernel."""
    filters, channels, *sides = shape
    kernel = math.prod(sides)
    fitting = max(_RGB, room // (filters * kernel))
    channels = min(channels, fitting, max(1, room // kernel))
    return min(filters, max(1, room // (channels * kernel))), channels


def _broadcast(
    scales: npt.NDArray[np.float32], weights: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    return scales.reshape(-1, *[1] * (weights.ndim - 1))


def _largest_magnitudes(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    rows = weights.reshape(len(weights), -1)
    largest: npt.NDArray[np.float32] = np.maximum(rows.max(1), -rows.min(1))
    if not np.isfinite(largest).all():
        largest = np.where(np.isfinite(rows), np.abs(rows), np.float32(0)).max(1)
    return largest


def _to_levels(shares: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    levels = np.rint(shares * 127 + _ZERO_LEVEL)
    levels[~np.isfinite(shares)] = 0
    return levels.astype(np.uint8)


def _counts(bits: npt.NDArray[np.uint8]) -> dict[str, int]:
    counts = {name: int((bits >> b & 1).sum()) for b, name in enumerate(VERDICT_NAMES)}
    return {name: count for name, count in counts.items() if count}


def _inflate(payload: bytes, length: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        planes = stream.decompress(payload, length + 1)
    except zlib.error as error:
        raise ValueError(f"its image does not unpack: {error}") from error
    if len(planes) != length or not stream.eof:
        raise ValueError(f"its image does not unpack to {length} bytes")
    return planes
