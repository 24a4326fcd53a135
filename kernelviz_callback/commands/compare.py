"""``kernelviz compare``: a table, and whatever files are asked for."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from tqdm import tqdm

from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
from kernelviz_callback.commands.failures import Failures, check_folders
from kernelviz_callback.comparison.compare import Comparer
from kernelviz_callback.comparison.comparison import Comparison
from kernelviz_callback.comparison.conditions import Condition
from kernelviz_callback.comparison.save import (
    PICTURE_SUFFIXES,
    log_comparison,
    save_comparison,
)
from kernelviz_callback.comparison.table import comparison_table
from kernelviz_callback.probe.probe import load_probe

# Work that takes no longer than this shows no progress, in seconds.
_QUICK = 1.0


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    check_folders(options.output)
    _check_responses(options)
    failures = Failures()
    names = failures.expand(options.files)
    if options.list:
        for name in names:
            with failures.survive():
                print(f"{name}\n{open_checkpoint(name).describe()}")
        return failures.status
    match = None if options.match == "auto" else options.match
    comparer = Comparer(len(names), layer=options.layer, match=match, probe=options.probe)
    for name in tqdm(names, unit="checkpoint", delay=_QUICK, leave=False, disable=None):
        with failures.survive():
            comparer.add(name)
    comparison = comparer.result()
    Console().print(comparison_table(comparison, most=options.top))
    responses_to = load_probe(options.probe) if options.responses else None
    for path in options.output:
        with failures.survive():
            save_comparison(comparison, path, scale=options.scale, responses_to=responses_to)
            print(path)
    if options.tensorboard:
        with failures.survive():
            log_comparison(comparison, options.tensorboard)
            print(f"tensorboard --logdir {options.tensorboard}")
    return max(failures.status, _judge(comparison, options.fail_if))


def _check_responses(options: argparse.Namespace) -> None:
    pictures = [p for p in options.output if p.suffix.lower() in PICTURE_SUFFIXES]
    if options.responses and not pictures:
        endings = ", ".join(PICTURE_SUFFIXES)
        raise ValueError(f"--responses is for a picture; add -o NAME ending in {endings}")


def _judge(comparison: Comparison, conditions: Sequence[Condition]) -> int:
    """1 if a condition holds for any checkpoint after the first, else 0.

    Raises:
        ValueError: If none holds, and of some it cannot be told.
    """
    others = comparison.columns[1:]
    held, untold = False, ""
    for condition in conditions:
        found: list[tuple[str, float]] = []
        for column in others:
            numbers = comparison.numbers(column)
            try:
                if condition.holds(numbers):
                    found.append((column.label, numbers[condition.number]))
            except ValueError as error:
                untold = untold or f"{column.label}: {error}"
        if found:
            label, value = found[0]
            held = True
            print(
                f"kernelviz: {condition} holds for {len(found)} of {len(others)} checkpoints, "
                f"first for {label}: {condition.number} is {value:.4g}",
                file=sys.stderr,
            )
    if untold and not held:
        raise ValueError(untold)
    return int(held)
