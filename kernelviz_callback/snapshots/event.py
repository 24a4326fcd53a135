"""Snapshots and probes as the Kernels tab and the report get them: compact, with verdicts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.model.host import to_host
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.tensorboard_plugin.codec import pack_probe, pack_snapshot
from kernelviz_callback.tensorboard_plugin.header import (
    USUAL_DATA_BYTES,
    ProbeHeader,
    SnapshotHeader,
)

# Of all layers of a snapshot together: 1,000 such snapshots are a gibibyte in TensorBoard's memory.
MOST_BYTES = 2**20


@dataclass(frozen=True)
class Attempt:
    """One recording of a training: of all of it, or from a checkpoint on.

    Attributes:
        training: Identity of the training.
        number: When it began, in milliseconds since 1970; later than any attempt before.
        began_at: Step of the first snapshot: what attempts before took later was given up.
    """

    training: str
    number: int
    began_at: int


def pack_layer(snapshot: Snapshot, layer: str, attempt: Attempt) -> tuple[SnapshotHeader, bytes]:
    """Pack one layer of a snapshot: a header and a payload, see `pack_snapshot`.

    Args:
        snapshot: With its health, if it was examined.
        layer: Name of the layer.
        attempt: Which recording took it.

    Raises:
        ValueError: If a kernel is too large.
    """
    health = snapshot.health.get(layer)
    return pack_snapshot(
        to_host(snapshot.weights[layer].detach()).float().numpy(),
        layer=layer,
        step=snapshot.step,
        epoch=snapshot.epoch,
        wall_time=snapshot.wall_time,
        training=attempt.training,
        attempt=attempt.number,
        began_at=attempt.began_at,
        geometry=snapshot.geometry[layer].to_dict(),
        probe=snapshot.probe_digest,
        drift=None if health is None else health.totals.drift,
        verdict_bits=verdict_bits(health),
        room=min(USUAL_DATA_BYTES, MOST_BYTES // len(snapshot.weights)),
    )


def pack_image(probe: Probe, attempt: Attempt) -> tuple[ProbeHeader, bytes]:
    """Pack a probe: a header and a payload, see `pack_probe`.

    Raises:
        ValueError: If it is too large.
    """
    image = probe.image.numpy()
    return pack_probe(image, name=probe.name, digest=probe.digest, attempt=attempt.number)


def verdict_bits(health: KernelHealth | None) -> npt.NDArray[np.uint8] | None:
    """The verdicts on each filter as the bits of a byte, in the order of `VERDICT_NAMES`.

    Returns:
        Shape (N,), uint8. None for filters that were not examined.

    Example:
        >>> from torch import randn
        >>> from kernelviz_callback import kernel_health
        >>> weights = randn(8, 3, 5, 5)
        >>> weights[3] = 0
        >>> VERDICT_NAMES[1], int(verdict_bits(kernel_health(weights))[3])
        ('near-zero', 2)
    """
    if health is None:
        return None
    bits = np.zeros(health.shape[0], np.uint8)
    for verdict in health.verdicts:
        bits[verdict.filter] |= 1 << VERDICT_NAMES.index(verdict.name)
    return bits
