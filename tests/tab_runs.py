"""Runs of given weights as real event files, for tests and benchmarks of the Kernels tab.

`write_run` writes a run of one layer in a line; `RunWriter` writes whatever else there is to a run,
one event at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from torch.utils.tensorboard import SummaryWriter

from kernelviz_callback.health.verdict_names import VERDICT_NAMES
from kernelviz_callback.tensorboard_plugin.codec import pack_probe, pack_snapshot, value_of

ATTEMPT = 1_700_000_000_000
GEOMETRY = {
    "kind": "Conv2d",
    "stride": (1, 1),
    "padding": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
}
STEPS_AN_EPOCH = 100
SECONDS_A_STEP = 0.5
DIGEST = "d" * 64  # digest of a probe, for tests in which any will do


def random_weights(
    steps: Iterable[int], shape: tuple[int, ...] = (64, 3, 7, 7), seed: int = 0
) -> dict[int, np.ndarray]:
    """Make random walks of filters: step to weights, quickly even for thousands of steps."""
    rng = np.random.default_rng(seed)
    start, drift, wobble = rng.normal(0, 0.1, (3, *shape)).astype(np.float32)
    return {
        step: start + np.float32(i / 100) * drift + np.float32(np.sin(i / 9) / 20) * wobble
        for i, step in enumerate(steps)
    }


def packed(weights: np.ndarray, **about: Any) -> tuple[Any, bytes]:
    """Pack a layer; ``about`` replaces usual arguments of `pack_snapshot`."""
    fields = {"layer": "conv1", "step": 7, "epoch": 1, "wall_time": 1.5, "attempt": ATTEMPT}
    return pack_snapshot(weights, **{**fields, "geometry": GEOMETRY, **about})


class RunWriter:
    """Writes one run, with the writer that a `SummaryWriter` has; use it in a ``with``.

    Args:
        folder: Of the run; made if need be.
        attempt: Of all that is written, unless something else is said.
    """

    def __init__(self, folder: Path, attempt: int = ATTEMPT) -> None:
        self.attempt = attempt
        self._writer = SummaryWriter(str(folder), max_queue=1000)

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def snapshot(self, weights: np.ndarray, step: int, layer: str = "conv1", **about: Any) -> None:
        """Write a layer at one step.

        Args:
            weights: Shape (N, C, kH, kW).
            step: The epoch and the time follow from it, unless ``about`` has them.
            layer: Name.
            about: Other arguments of `pack_snapshot`, ``verdicts`` as for `write_run`.
        """
        verdicts = about.pop("verdicts", None)
        fields = {
            "layer": layer,
            "step": step,
            "epoch": step // STEPS_AN_EPOCH,
            "wall_time": self.attempt / 1000 + step * SECONDS_A_STEP,
            "attempt": self.attempt,
            "geometry": GEOMETRY,
            "verdict_bits": None if verdicts is None else bits_of(verdicts, len(weights)),
        }
        self.value(value_of(*pack_snapshot(weights, **{**fields, **about})), step)

    def probe(self, image: np.ndarray, name: str = "image", digest: str = DIGEST) -> None:
        """Write the probe, shape (C, H, W)."""
        packed = pack_probe(image, name=name, digest=digest, attempt=self.attempt)
        self.value(value_of(*packed))

    def value(self, value: Summary.Value, step: int = 0) -> None:
        """Write any event."""
        self._writer._get_file_writer().add_summary(Summary(value=[value]), step)

    def scalar(self, tag: str, number: float, step: int) -> None:
        """Write a scalar, for the other dashboards."""
        self._writer.add_scalar(tag, number, step)

    def flush(self) -> None:
        """Flush, so that TensorBoard can read what was written."""
        self._writer.flush()


def write_run(
    folder: Path,
    weights: Mapping[int, np.ndarray] | Mapping[str, Mapping[int, np.ndarray]],
    *,
    layer: str = "conv1",
    probe: np.ndarray | None = None,
    digest: str = DIGEST,
    verdicts: Mapping[int, Mapping[int, Sequence[str]]] | None = None,
    geometry: Mapping[str, Any] | None = None,
    attempt: int = ATTEMPT,
    training: str = "",
) -> Path:
    """Write a whole run.

    Args:
        folder: Of the run.
        weights: Step to filters, shape (N, C, kH, kW), or layer to that.
        layer: Name, of the only layer.
        probe: Shape (C, H, W); None writes none.
        digest: Of the probe.
        verdicts: Step to filter to names, as ``{100: {3: ["near-zero"]}}``: steps that are absent
            were not examined. Of every layer.
        geometry: What is unlike `GEOMETRY`.
        attempt: When the recording began, in milliseconds.
        training: Whose attempt it is.

    Returns:
        The folder.
    """
    first = next(iter(weights.values()))
    layers: Any = weights if isinstance(first, Mapping) else {layer: weights}
    about = {
        "geometry": {**GEOMETRY, **(geometry or {})},
        "probe": None if probe is None else digest,
        "training": training,
        "began_at": min(step for of_layer in layers.values() for step in of_layer),
    }
    with RunWriter(folder, attempt) as run:
        if probe is not None:
            run.probe(probe, digest=digest)
        for step in sorted({step for of_layer in layers.values() for step in of_layer}):
            for name, of_layer in layers.items():
                if step in of_layer:
                    found = (verdicts or {}).get(step)
                    run.snapshot(of_layer[step], step, name, verdicts=found, **about)
    return folder


def bits_of(verdicts: Mapping[int, Sequence[str]], filters: int) -> np.ndarray:
    """Encode verdicts, filter to names, as bits: shape (filters,), uint8."""
    bits = np.zeros(filters, np.uint8)
    for index, names in verdicts.items():
        for name in names:
            bits[index] |= 1 << VERDICT_NAMES.index(name)  # type: ignore[arg-type]
    return bits


def raw_value(
    tag: str, content: bytes, payload: bytes = b"", *, plugin: str = "kernels"
) -> Summary.Value:
    """Make an event with any header and payload, also an invalid one."""
    return Summary.Value(
        tag=tag,
        metadata=SummaryMetadata(
            plugin_data=SummaryMetadata.PluginData(plugin_name=plugin, content=content),
            data_class=DATA_CLASS_TENSOR,
        ),
        tensor=TensorProto(dtype=DT_STRING, string_val=[payload], tensor_shape={}),
    )
