"""A log directory with everything that the server of the Kernels tab has to handle."""

from pathlib import Path
from typing import Any

import numpy as np
from tab_runs import ATTEMPT, RunWriter, packed, random_weights, raw_value, write_run
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT

from kernelviz_callback.tensorboard_plugin.codec import pack_probe
from kernelviz_callback.tensorboard_plugin.header import tag_of, to_content

SCRIPT = "<script>alert(1)</script>"
SMALL = (4, 3, 3, 3)
LONG = random_weights(range(0, 3000, 10), SMALL)  # 300 snapshots
MANY = random_weights(range(10_000), (2, 1, 2, 2))
CHART = np.random.default_rng(4).random((3, 12, 10), dtype=np.float32)


def payload_of(weights: np.ndarray, **about: Any) -> bytes:
    return packed(weights, **about)[1]


def id_of(step: int, attempt: int = ATTEMPT) -> str:
    return f"{step}-{attempt}"


def ids_of(run: Any, layer: int = 0) -> list[str]:
    return [each["id"] for each in run["layers"][layer]["snapshots"]]


def write_damaged_run(folder: Path) -> dict[str, str]:
    """Write three good snapshots among damaged events. Returns tag to a part of the reason."""
    weights = random_weights(range(3), SMALL)
    reasons = {}

    def spoilt(
        step: int, reason: str, lie: Any = (), content: bytes = b"", payload: bytes = b""
    ) -> Summary.Value:
        header, right = packed(weights[0], step=step)
        reasons[tag_of(header)] = reason
        content = content or to_content({**header, **dict(lie)})
        return raw_value(tag_of(header), content, payload or right)

    cut = spoilt(14, "holds 1 bytes", payload=b"x")
    number = spoilt(15, "float instead of packed bytes")
    number.tensor.CopyFrom(TensorProto(dtype=DT_FLOAT, float_val=[1.0]))
    nonsense = spoilt(16, "TensorBoard cannot unpack it")
    nonsense.tensor.tensor_shape.dim.add(size=-1)
    probe, image = pack_probe(CHART, name="", digest="e" * 64, attempt=ATTEMPT)
    reasons[tag_of(probe)] = "does not unpack"
    with RunWriter(folder) as run:
        for step, each in weights.items():
            run.snapshot(each, step)
        run.value(spoilt(10, "not JSON", content=b'{"version":1,"kind":"snap'))
        run.value(spoilt(11, "not JSON", content=b"\x08\x01\x12\x04junk"))
        run.value(spoilt(12, "the version 2", {"version": 2}))
        run.value(spoilt(13, "belongs to the tag", {"step": 17}))
        run.value(spoilt(18, "holds 100 bytes instead of 236", payload=bytes(100)))
        run.value(spoilt(19, "other snapshots of the layer", {"shape": [4, 3, 3, 2]}))
        for value in (
            cut,
            number,
            nonsense,
            raw_value(tag_of(probe), to_content(probe), image[:9]),
        ):
            run.value(value)
    return reasons


def write_all(folder: Path) -> None:
    """Write all kinds of runs, and one without kernels."""
    verdicts = {0: {}, 10: {1: ["near-zero"], 2: ["near-zero", "silent"]}}
    write_run(folder / "long", LONG, probe=CHART, verdicts=verdicts)
    write_run(folder / "many", MANY)
    layers = {"stem": LONG, "a.conv": {0: np.ones((2, 4, 3, 3), np.float32)}, "": LONG}
    write_run(folder / "layers" / "version_0", layers)
    write_run(folder / SCRIPT, {0: LONG[0]}, layer=SCRIPT)
    earlier = random_weights([0, 10, 20, 30], SMALL, seed=1)
    write_run(folder / "resumed", earlier, attempt=1000)
    write_run(folder / "resumed", random_weights([15, 20], SMALL, seed=2), attempt=2000)
    write_damaged_run(folder / "damaged")
    write_run(folder / "cut", LONG)
    [file] = (folder / "cut").iterdir()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with RunWriter(folder / "plain") as run:
        run.scalar("loss", 1.0, 0)


def is_complete(timeline: Any, prefix: str) -> bool:
    counts = {
        run["name"]: sum(len(layer["snapshots"]) for layer in run["layers"])
        for run in timeline["runs"]
    }
    expected = {"long": 300, "many": 10_000, "layers/version_0": 601, "resumed": 4, "damaged": 7}
    return expected.items() <= {name.removeprefix(prefix): n for name, n in counts.items()}.items()
