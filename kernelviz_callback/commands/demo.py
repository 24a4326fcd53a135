"""``kernelviz demo``: train, and tell where the pictures are."""

import shlex
from pathlib import Path

from kernelviz_callback.demo import run_demo


def run(output: Path, *, epochs: int, batches: int) -> int:
    """Run the command; return its exit status."""
    folder = run_demo(output, epochs=epochs, batches=batches)
    pictures = "\n".join(f"    {path}" for path in sorted(folder.glob("*.png")))
    run_name = shlex.quote(str(folder))
    print(
        f"""
The first and the last pictures:

{pictures}

Every snapshot is in TensorBoard, under Kernels; the film of the training under Images:

    tensorboard --logdir {shlex.quote(str(folder.parent))}

The same as one file to send, or as an animation; and what changed, in numbers:

    kernelviz evolve {run_name} -o report.html -o evolution.gif
    kernelviz compare {run_name} -o compare.html

The exact weights of every snapshot are in {folder / "kernelviz"}"""
    )
    return 0
