"""The command line: its commands and options.

The code of a command is imported when the command runs, so that ``--help`` is fast.
"""

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from kernelviz_callback._version import __version__
from kernelviz_callback.commands.output_streams import plain_warnings, tolerant_output
from kernelviz_callback.comparison.fail_conditions import Condition, parse_condition

_SAVED_AS = (".png", ".svg", ".pdf", ".jpg")
_COMPARED_AS = (".png", ".svg", ".pdf", ".html", ".json", ".csv")
_EVOLVED_AS = (".png", ".svg", ".pdf", ".gif", ".mp4", ".html")
_MOST_QUOTED = 200  # characters of the message of an error
_FILES = """\
FILE may be a Lightning checkpoint, another file of torch.save, a safetensors file, a snapshot,
a plain pickle of arrays, a folder of torch.distributed.checkpoint, Hugging Face or DeepSpeed,
a shard of a model for the whole model, a URL that fsspec opens, or torchvision:NAME:WEIGHTS;
torchvision:NAME has random weights.
A glob, a folder of snapshots or checkpoints, a run folder, or a folder with lightning_logs stands
for all checkpoints in it, in the order of their steps. Nothing in a file is executed.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 for success, 1 if a condition of ``--fail-if`` is true and for nothing else, 2 for an
        error, 130 if the user interrupted the command.
    """
    with tolerant_output(), plain_warnings():
        return _main(arguments)


def _main(arguments: list[str] | None) -> int:
    options = parser().parse_args(arguments)
    try:
        status = _run(options)
        if sys.stdout is not None:  # it is None if the user has closed it
            sys.stdout.flush()
        return status
    except (ModuleNotFoundError, OSError, ValueError) as error:
        print(f"kernelviz: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kernelviz: interrupted", file=sys.stderr)
        return 130
    # Python would exit with 1, which a script takes for a condition that is true.
    except Exception as error:
        print(f"kernelviz: {_describe_fault(error)}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line, with all commands and their options."""
    kernelviz = argparse.ArgumentParser(
        prog="kernelviz", description="See a network's first layer learn."
    )
    kernelviz.add_argument("--version", action="version", version=f"kernelviz {__version__}")
    commands = kernelviz.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_show(commands)
    _add_compare(commands)
    _add_evolve(commands)
    return kernelviz


def _describe_fault(error: Exception) -> str:
    """Describe an error of the program itself in one line: what it is, and where it was raised."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    last = traceback.extract_tb(error.__traceback__)[-1]
    reason = " ".join(str(error).split())[:_MOST_QUOTED]
    return (
        f"a fault of kernelviz {__version__} itself, please report it: {type(error).__name__}: "
        f"{reason} ({Path(last.filename).name}, line {last.lineno})"
    )


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


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = commands.add_parser(
        "demo",
        help="train a small network on photographs and draw its first layer",
        description="Train a small network to recognize photographs by small crops of them, and "
        "draw its 64 filters of 3x7x7 as they form. Takes about a minute on two cores.",
    )
    demo.add_argument(
        "--output", type=Path, default=Path("runs"), help="folder for the runs (default: runs)"
    )
    demo.add_argument("--epochs", type=_positive, default=12, help="epochs (default: 12)")
    demo.add_argument(
        "--batches",
        type=_positive,
        default=100,
        help="batches of 128 crops in an epoch (default: 100)",
    )


def _add_show(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    show = commands.add_parser(
        "show",
        help="draw a layer of a checkpoint: its kernels and their responses",
        description="Draw a layer of a checkpoint: its kernels, and their responses to an image.\n"
        "For a snapshot, these are the pictures that were logged.",
        epilog=_FILES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument(
        "file", metavar="FILE", help="if it stands for several checkpoints, the newest is shown"
    )
    _add_common(show, probe="image file to convolve (default: a test chart)")
    show.add_argument(
        "-o",
        "--output",
        type=_path_ending_in(_SAVED_AS),
        metavar="PATH",
        help=f"NAME{'|'.join(_SAVED_AS)}: write NAME-kernels and NAME-responses; without this "
        "option, the pictures are shown on the screen",
    )
    show.add_argument(
        "--response",
        choices=("channels", "sum"),
        default="channels",
        help="one plane for each input channel, or their sum (default: channels)",
    )
    show.add_argument(
        "--scale",
        choices=("filter", "layer"),
        default="filter",
        help="the range of the colours: the largest magnitude of each filter, or of the layer "
        "(default: filter)",
    )


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = commands.add_parser(
        "compare",
        help="show what changed between checkpoints, or how similar two networks are",
        description="Show what changed between the checkpoints of a training, or how similar two "
        "networks are.\nFilters of different trainings are matched by their weights, or, if the "
        "shapes of the layers\ndiffer, by their responses to the same image.",
        epilog=f"{_FILES}\nexit status: 0; 1 if a condition of --fail-if is true; 2 if a file "
        "could not be read\n(the other files are still compared) or the command is wrong.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="two or more checkpoints; the others are compared with the first",
    )
    _add_common(compare, probe="image file on which responses are compared (default: a test chart)")
    compare.add_argument(
        "-o",
        "--output",
        type=_path_ending_in(_COMPARED_AS),
        action="append",
        default=[],
        metavar="PATH",
        help=f"NAME{'|'.join(_COMPARED_AS)}: write the picture, the page, or the numbers; may be "
        "given several times",
    )
    compare.add_argument(
        "--tensorboard", metavar="DIR", help="write images and numbers as an event file into DIR"
    )
    compare.add_argument(
        "--fail-if",
        type=_condition,
        action="append",
        default=[],
        metavar="CONDITION",
        help="exit with 1 if the condition is true for any checkpoint after the first, for example "
        "'drift>0.5'; may be given several times",
    )
    compare.add_argument(
        "--match",
        choices=("auto", "index", "weights", "responses"),
        default="auto",
        help="match filters by index, by the most similar weights, or by the most correlated "
        "responses (default: auto, decided for each checkpoint)",
    )
    compare.add_argument(
        "--responses", action="store_true", help="draw responses, not kernels, in the picture"
    )
    compare.add_argument(
        "--scale",
        choices=("layer", "filter"),
        default="layer",
        help="the range of the colours in the picture: the largest magnitude of all filters, or of "
        "each filter (default: layer)",
    )
    compare.add_argument(
        "--top", type=_positive, default=12, help="number of filters to list (default: 12)"
    )


def _add_evolve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evolve = commands.add_parser(
        "evolve",
        help="show how the filters of a training changed: film strip, animation, report",
        description="Show how the filters of a training changed. Without -o, list what can be "
        "shown.\n\n"
        "  NAME.png|.svg|.pdf  film strip: a row for each filter, a column for each snapshot\n"
        "                      (at most 12)\n"
        "  NAME.gif            animation of the kernel grid: at most 120 snapshots and 8 MB\n"
        "  NAME.mp4            animation of all snapshots; needs kernelviz-callback[video]\n"
        "  NAME.html           report: a page with a slider over the snapshots, in one file",
        epilog=_FILES.replace("FILE", "RUN")
        + "\nexit status: 0; 2 if a file could not be read (the other files are still shown) or "
        "the\ncommand is wrong.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evolve.add_argument(
        "files",
        nargs="+",
        metavar="RUN",
        help="a run folder, the run folders of a resumed training, or checkpoints of one training",
    )
    _add_common(
        evolve,
        probe="image file for the responses in a report, with -o NAME.html (default: the probe of "
        "the training, else a test chart)",
    )
    evolve.add_argument(
        "-o",
        "--output",
        type=_path_ending_in(_EVOLVED_AS),
        action="append",
        default=[],
        metavar="PATH",
        help="the file to write, see above; may be given several times",
    )
    evolve.add_argument(
        "--scale",
        choices=("layer", "filter"),
        default="layer",
        help="the range of the colours in all snapshots: the largest magnitude of all filters, or "
        "of each filter (default: layer)",
    )


def _add_common(command: argparse.ArgumentParser, *, probe: str) -> None:
    command.add_argument(
        "--layer",
        help="name of the layer, or the end of its name (default: the first convolution)",
    )
    command.add_argument(
        "--list", action="store_true", help="only list the layers and their shapes"
    )
    command.add_argument("--probe", metavar="IMAGE", help=probe)


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number; found {text!r}")
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
