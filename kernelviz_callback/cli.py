"""The command line: what may be asked. What a command needs is imported when it runs."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from kernelviz_callback._version import __version__
from kernelviz_callback.comparison.conditions import Condition, parse_condition

_SAVED_AS = (".png", ".svg", ".pdf", ".jpg")
_COMPARED_AS = (".png", ".svg", ".pdf", ".html", ".json", ".csv")
_EVOLVED_AS = (".png", ".svg", ".pdf", ".gif", ".mp4", ".html")
_FILES = """\
FILE may be a Lightning checkpoint, whatever else torch.save wrote, a safetensors file, a snapshot,
a folder of torch.distributed.checkpoint, a URL that fsspec opens, or torchvision:NAME[:WEIGHTS].
A glob or a folder of snapshots, of checkpoints or of a run stands for all of them by their steps.
Nothing in a file is executed.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 for success, 1 if a condition of ``--fail-if`` holds, 2 for what the user can mend.
    """
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ModuleNotFoundError, OSError, ValueError) as error:
        print(f"kernelviz: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kernelviz: interrupted", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.command == "demo":
        from kernelviz_callback.commands.demo import run

        return run(options.output, epochs=options.epochs, batches=options.batches)
    if options.command == "show":
        from kernelviz_callback.commands import show

        return show.run(options)
    if options.command == "evolve":
        from kernelviz_callback.commands import evolve

        return evolve.run(options)
    from kernelviz_callback.commands import compare

    return compare.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kernelviz", description="See a network's first layer learn."
    )
    parser.add_argument("--version", action="version", version=f"kernelviz {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_show(commands)
    _add_compare(commands)
    _add_evolve(commands)
    return parser


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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


def _add_show(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    show = commands.add_parser(
        "show",
        help="picture a layer of a checkpoint: its kernels and their responses",
        description="Picture a layer of a checkpoint: its kernels, and what they make of an image. "
        "Of a snapshot these are the pictures that were logged.",
        epilog=_FILES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument("file", metavar="FILE", help="of several checkpoints the last is shown")
    _add_common(show)
    show.add_argument(
        "-o",
        "--output",
        type=_path_ending_in(_SAVED_AS),
        metavar="PATH",
        help=f"NAME{'|'.join(_SAVED_AS)}: write NAME-kernels and NAME-responses; without it they "
        "are shown on the screen",
    )
    show.add_argument(
        "--response",
        choices=("channels", "sum"),
        default="channels",
        help="one plane an input channel, or their sum (default: channels)",
    )
    show.add_argument(
        "--scale",
        choices=("filter", "layer"),
        default="filter",
        help="the colours end at the largest magnitude of each filter or of the layer "
        "(default: filter)",
    )


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = commands.add_parser(
        "compare",
        help="tell what changed between checkpoints, or how alike two networks are",
        description="Tell what changed between the checkpoints of a training, or how alike two "
        "networks are: filters of different trainings are paired off by their weights, layers of "
        "different shape by their responses to the same image.",
        epilog=f"{_FILES}\nexit status: 0; 1 if a condition of --fail-if holds; 2 if a file could "
        "not be read\n(the others are compared all the same) or the command is wrong.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "files", nargs="+", metavar="FILE", help="two checkpoints or more; the first is the base"
    )
    _add_common(compare)
    compare.add_argument(
        "-o",
        "--output",
        type=_path_ending_in(_COMPARED_AS),
        action="append",
        default=[],
        metavar="PATH",
        help=f"NAME{'|'.join(_COMPARED_AS)}: the picture, the page, or the numbers; may be given "
        "several times",
    )
    compare.add_argument(
        "--tensorboard", metavar="DIR", help="write images and numbers as an event file there"
    )
    compare.add_argument(
        "--fail-if",
        type=_condition,
        action="append",
        default=[],
        metavar="CONDITION",
        help="exit with 1 if this is true of any checkpoint after the first, as in 'drift>0.5'; "
        "may be given several times",
    )
    compare.add_argument(
        "--match",
        choices=("auto", "index", "weights", "responses"),
        default="auto",
        help="take filter i for filter i, or pair off those of most similar weights or most "
        "correlated responses (default: auto, found out for each checkpoint)",
    )
    compare.add_argument(
        "--responses", action="store_true", help="the picture shows responses, not kernels"
    )
    compare.add_argument(
        "--scale",
        choices=("layer", "filter"),
        default="layer",
        help="the colours of the picture end at the largest magnitude of all or of each filter "
        "(default: layer)",
    )
    compare.add_argument("--top", type=_positive, default=12, help="filters to list (default: 12)")


def _add_evolve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evolve = commands.add_parser(
        "evolve",
        help="show how the filters of a training came to be: film strip, animation, report",
        description="Show how the filters of a training came to be. Without -o: tell what there "
        "is.\n\n"
        "  NAME.png|.svg|.pdf  film strip: a row a filter, a column a snapshot, 12 at most\n"
        "  NAME.gif            the kernel grid in motion: 120 snapshots, 8 MB at most\n"
        "  NAME.mp4            the same of all snapshots; needs kernelviz-callback[video]\n"
        "  NAME.html           a page to scrub through, with all it needs in one file",
        epilog=_FILES.replace("FILE", "RUN")
        + "\nexit status: 0; 2 if a file could not be read (the "
        "others are shown all the same) or the\ncommand is wrong.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evolve.add_argument(
        "files",
        nargs="+",
        metavar="RUN",
        help="a run's folder, those of a run that was resumed, or checkpoints of one training",
    )
    _add_common(evolve, probe="that of the run, else a test chart")
    evolve.add_argument(
        "-o",
        "--output",
        type=_path_ending_in(_EVOLVED_AS),
        action="append",
        default=[],
        metavar="PATH",
        help="what to make, see above; may be given several times",
    )
    evolve.add_argument(
        "--scale",
        choices=("layer", "filter"),
        default="layer",
        help="the colours end at the largest magnitude of all or of each filter, and stay so from "
        "the first snapshot to the last (default: layer)",
    )


def _add_common(command: argparse.ArgumentParser, *, probe: str = "a test chart") -> None:
    command.add_argument(
        "--layer",
        help="name of the layer, or the end of it (default: the first convolution)",
    )
    command.add_argument(
        "--list", action="store_true", help="list the layers and their shapes, and do nothing else"
    )
    command.add_argument("--probe", metavar="IMAGE", help=f"image to respond to (default: {probe})")


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, found {text!r}")
    return number


def _path_ending_in(suffixes: tuple[str, ...]) -> Callable[[str], Path]:
    def path(text: str) -> Path:
        if Path(text).suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(
                f"expected a name ending in {', '.join(suffixes)}; found {text!r}"
            )
        return Path(text)

    return path


def _condition(text: str) -> Condition:
    try:
        return parse_condition(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
