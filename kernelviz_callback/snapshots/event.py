"""Pack snapshots and probes for the Kernels tab and the report."""

import numpy as np
import numpy.typing as npt

from kernelviz_callback.health.kernel_health import KernelHealth
from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.model.host import to_host
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.attempt import Attempt
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.tensorboard_plugin.codec import pack_probe, pack_snapshot
from kernelviz_callback.tensorboard_plugin.header import (
    USUAL_DATA_BYTES,
    ProbeHeader,
    SnapshotHeader,
)

# Largest size of a packed snapshot with all its layers, in bytes. TensorBoard keeps 1,000 snapshots
# of this size in 1 GiB.
MOST_BYTES = 2**20

_NO_ATTEMPT = Attempt("", 0)


def pack_layer(
    snapshot: Snapshot, layer: str, attempt: Attempt | None = None, *, began_at: int = 0
) -> tuple[SnapshotHeader, bytes]:
    """Pack one layer of a snapshot into a header and a payload, see `pack_snapshot`.

    Args:
        snapshot: The snapshot. The verdicts of an examined layer are packed with it.
        layer: Name of the layer.
        attempt: The attempt that took the snapshot. None if all snapshots that are shown
            together are from one attempt, as in a report.
        began_at: Step of the first snapshot of the attempt. Snapshots that earlier attempts took at
            this step or later are outdated.

    Raises:
        ValueError: If a kernel is too large.
    """
    attempt = attempt or _NO_ATTEMPT
    health = snapshot.health.get(layer)
    return pack_snapshot(
        to_host(snapshot.weights[layer].detach()).float().numpy(),
        layer=layer,
        step=snapshot.step,
        epoch=snapshot.epoch,
        wall_time=snapshot.wall_time,
        training=attempt.training,
        attempt=attempt.number,
        began_at=began_at,
        geometry=snapshot.geometry[layer].to_dict(),
        probe=snapshot.probe_digest,
        drift=None if health is None else health.totals.drift,
        verdict_bits=verdict_bits(health),
        stored_only=layer in snapshot.stored_only,
        room=min(USUAL_DATA_BYTES, MOST_BYTES // len(snapshot.weights)),
    )


def pack_image(probe: Probe, attempt: Attempt | None = None) -> tuple[ProbeHeader, bytes]:
    """Pack a probe into a header and a payload, see `pack_probe`.

    Args:
        probe: The probe.
        attempt: See `pack_layer`.

    Raises:
        ValueError: If the image is too large.
    """
    number = (attempt or _NO_ATTEMPT).number
    return pack_probe(probe.image.numpy(), name=probe.name, digest=probe.digest, attempt=number)


def verdict_bits(health: KernelHealth | None) -> npt.NDArray[np.uint8] | None:
    """Encode the verdicts on each filter: bit i is set for the verdict ``VERDICT_NAMES[i]``.

    Returns:
        One byte for each filter, shape (N,), uint8. None for a layer that was not examined.

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
