"""The command line: ``kernelviz demo``. What a command needs is imported when it runs."""

import argparse
import shlex
import sys
from pathlib import Path

from kernelviz_callback import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0 for success, 2 for what the user can mend."""
    options = _parser().parse_args(arguments)
    try:
        return _demo(options)
    except (ModuleNotFoundError, OSError) as error:
        print(f"kernelviz: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kernelviz", description="See a network's first layer learn."
    )
    parser.add_argument("--version", action="version", version=f"kernelviz {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="train a small network on photographs and picture its first layer",
        description="Train a small network to tell photographs apart by small crops of them, and "
        "picture its 64 filters of 3x7x7 as they form. Takes about a minute on two cores.",
    )
    demo.add_argument(
        "--output", type=Path, default=Path("runs"), help="folder of the run (default: runs)"
    )
    demo.add_argument("--epochs", type=_positive, default=12, help="epochs (default: 12)")
    demo.add_argument(
        "--batches",
        type=_positive,
        default=100,
        help="batches of 128 crops an epoch (default: 100)",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return number


def _demo(options: argparse.Namespace) -> int:
    from kernelviz_callback.demo import run_demo

    run = run_demo(options.output, epochs=options.epochs, batches=options.batches)
    pictures = "\n".join(f"    {path}" for path in sorted(run.glob("*.png")))
    print(
        f"""
The first and the last pictures:

{pictures}

Every snapshot is in TensorBoard, under Images:

    tensorboard --logdir {shlex.quote(str(run.parent))} --samples_per_plugin images=500

The exact weights of every snapshot are in {run / "kernelviz"}"""
    )
    return 0
