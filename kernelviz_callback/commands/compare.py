"""``kernelviz compare``: print a table, and write the requested files."""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from tqdm import tqdm

from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
from kernelviz_callback.commands.file_errors import FileErrors, check_folders
from kernelviz_callback.comparison.compare import Comparer
from kernelviz_callback.comparison.comparison import Comparison
from kernelviz_callback.comparison.fail_conditions import Condition
from kernelviz_callback.comparison.save import (
    PICTURE_SUFFIXES,
    log_comparison,
    save_comparison,
)
from kernelviz_callback.comparison.table import comparison_table
from kernelviz_callback.probe.probe import load_probe
from kernelviz_callback.storage import replace_when_complete

_QUICK = 1.0  # seconds of work before a progress bar is shown


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    check_folders(options.output)
    _check_responses(options)
    failures = FileErrors()
    names = failures.expand(options.files)
    if options.list:
        for name in names:
            with failures.catch():
                print(f"{name}\n{open_checkpoint(name).describe()}")
        return failures.status
    match = None if options.match == "auto" else options.match
    comparer = Comparer(len(names), layer=options.layer, match=match, probe=options.probe)
    for name in tqdm(names, unit="checkpoint", delay=_QUICK, leave=False, disable=None):
        with failures.catch():
            comparer.add(name)
    comparison = comparer.result()
    Console().print(comparison_table(comparison, most=options.top))
    responses_to = load_probe(options.probe) if options.responses else None
    for path in options.output:
        with failures.catch():
            with replace_when_complete(path) as temporary:
                save_comparison(
                    comparison, temporary, scale=options.scale, responses_to=responses_to
                )
            print(path)
    if options.tensorboard:
        with failures.catch():
            log_comparison(comparison, options.tensorboard)
            print(f"tensorboard --logdir {options.tensorboard}")
    return max(failures.status, _check_conditions(comparison, options.fail_if))


def _check_responses(options: argparse.Namespace) -> None:
    pictures = [p for p in options.output if p.suffix.lower() in PICTURE_SUFFIXES]
    if options.responses and not pictures:
        endings = ", ".join(PICTURE_SUFFIXES)
        raise ValueError(f"--responses is for a picture; add -o NAME ending in {endings}")


def _check_conditions(comparison: Comparison, conditions: Sequence[Condition]) -> int:
    """Return 1 if a condition is true for any checkpoint after the first, else 0.

    Raises:
        ValueError: If no condition is true, and a condition cannot be checked.
    """
    others = comparison.columns[1:]
    is_any_true, problem = False, ""
    for condition in conditions:
        found: list[tuple[str, float]] = []
        for column in others:
            numbers = comparison.numbers(column)
            try:
                if condition.holds(numbers):
                    found.append((column.label, numbers[condition.number]))
            except ValueError as error:
                problem = problem or f"{column.label}: {error}"
        if found:
            label, value = found[0]
            is_any_true = True
            print(
                f"kernelviz: {condition} holds for {len(found)} of {len(others)} checkpoints, "
                f"first for {label}: {condition.number} is {value:.4g}",
                file=sys.stderr,
            )
    if problem and not is_any_true:
        raise ValueError(problem)
    return int(is_any_true)
