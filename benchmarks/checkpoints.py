"""Measure what it costs to compare many large checkpoints, and to read them with ``torch.load``.

The checkpoints are those of ResNet-50 with its AdamW optimizer, 300 MB each. Each contender runs in
a process of its own that has imported torch, and reads the first convolution of every file. Each
file has been read once before, so the time does not depend on the disk.

    python benchmarks/checkpoints.py [--count 20] [--rounds 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torchvision.models import resnet50

# Print the seconds, and the peak memory in MiB above the peak of the imports.
_MEASURED = """
import json, sys, time
import torch
{imports}
def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
paths = sys.argv[1:]
before, start = peak(), time.perf_counter()
{body}
print(json.dumps([time.perf_counter() - start, peak() - before]))
"""
_OURS = _MEASURED.format(
    imports="from kernelviz_callback import load_weights",
    body="weights = [load_weights(path) for path in paths]",
)
_COMPARE = _MEASURED.format(
    imports="from kernelviz_callback import compare",
    body="found = compare(*paths)",
)
_PLAIN = _MEASURED.format(
    imports="",
    body="""
weights = []
for path in paths:
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    weights.append(checkpoint["state_dict"]["model.conv1.weight"].clone())
    del checkpoint
""",
)


def write_checkpoints(folder: Path, count: int) -> list[str]:
    """Write checkpoints of a training, with one optimizer step between two of them."""
    torch.manual_seed(0)
    model = resnet50()
    optimizer = torch.optim.AdamW(model.parameters())
    paths = []
    for step in range(count):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        content = {
            "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
            "optimizer_states": [optimizer.state_dict()],
            "global_step": step,
            "epoch": step,
        }
        paths.append(str(folder / f"epoch={step}-step={step}.ckpt"))
        torch.save(content, paths[-1])
    return paths


def measure(code: str, paths: list[str], rounds: int) -> tuple[float, float]:
    """Return the median seconds and MiB of a contender."""
    found = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return statistics.median(t for t, _ in found), statistics.median(m for _, m in found)


def main() -> None:
    """Print the table of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_checkpoints(Path(folder), options.count)
        size = Path(paths[0]).stat().st_size / 1e6
        print(f"| checkpoints of {size:.0f} MB | time | each | peak memory above importing |")
        print("|---|---|---|---|")
        contenders = {"`torch.load`": _PLAIN, "`load_weights`": _OURS, "`compare`": _COMPARE}
        for name, code in contenders.items():
            for some in (paths[:1], paths) if code is not _COMPARE else (paths,):
                seconds, memory = measure(code, some, options.rounds)
                print(
                    f"| {len(some)}, {name} | {seconds:.2f} s | {seconds / len(some):.3f} s "
                    f"| {memory:.0f} MiB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
