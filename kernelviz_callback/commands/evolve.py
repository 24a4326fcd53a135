"""``kernelviz evolve``: write files that show how the filters of a training changed."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kernelviz_callback.checkpoints.checkpoint import Checkpoint, open_checkpoint
from kernelviz_callback.commands.file_errors import FileErrors, check_folders
from kernelviz_callback.commands.history import LayerHistory, OtherShapeError, order_by_step
from kernelviz_callback.commands.resumed_runs import describe_order_change, find_training
from kernelviz_callback.drawing.animation.animate import evolution_gif, moving_pictures
from kernelviz_callback.drawing.animation.crop import MOST_PIXELS
from kernelviz_callback.drawing.animation.frame import LARGE_SIDE, FrameRenderer
from kernelviz_callback.drawing.animation.sampling import (
    FilterSequence,
    Frame,
    Reading,
    SequenceScale,
    read_sequences,
    to_half_ranges,
    typical_magnitudes,
    with_signs,
)
from kernelviz_callback.drawing.animation.strip import MOST_COLUMNS, film_strip
from kernelviz_callback.drawing.animation.video import check_encoder, save_mp4
from kernelviz_callback.filters.principal import ContinuousSigns
from kernelviz_callback.storage import replace_when_complete

# Larger than the limit for the films that are logged during a training.
_MOST_MOVING_PIXELS = 2**17
_MOST_GIF_FRAMES = 120
_MOST_GIF_BYTES = 8_000_000  # mail and issue trackers accept a file of this size
_SECONDS = 20  # length of a video, if the frame rate stays within the limits below
_SLOWEST, _FASTEST = 4, 60  # frames per second
_HOLD = 2  # seconds for which the last frame stays
_QUICK = 1.0  # seconds before a progress bar is shown
_KINDS = "film.png (.svg, .pdf), evolution.gif, evolution.mp4 or report.html"


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    check_folders(options.output)
    suffixes = {path.suffix.lower() for path in options.output}
    if options.probe and ".html" not in suffixes:
        raise ValueError("--probe is for a report; add -o NAME.html")
    if ".mp4" in suffixes:
        check_encoder()
    failures = FileErrors()
    files, notes = find_training(options.files, failures)
    names, step_notes = order_by_step(_progress(files, "step"), failures.catch, options.layer)
    notes += step_notes
    first = _open_first(names, failures)
    print("\n".join(_summary(names, notes)))
    if options.list or not options.output:
        print(*dict.fromkeys([first.name, list(names.values())[-1]]), sep=" to\n")
        print(f"{first.describe()}\nfiles that -o can write for a layer: {_KINDS}")
        return failures.status
    history = LayerHistory(names, first, options.layer)
    warning = describe_order_change(history)
    for remark in [*first.remarks(options.layer), *([warning] if warning else [])]:
        print(f"kernelviz: {remark}", file=sys.stderr)
    layer = _Layer(history, list(names), failures)
    for path in options.output:
        with failures.catch():
            with replace_when_complete(path) as temporary:
                if path.suffix.lower() == ".html":
                    _save_report(history, temporary, options.probe, notes, failures)
                else:
                    layer.save(temporary, options.scale)
            print(path)
    return failures.status


class _Layer:
    """One layer in all snapshots. A snapshot that cannot be read is reported once and left out."""

    def __init__(self, history: LayerHistory, steps: Sequence[int], failures: FileErrors) -> None:
        self.name = history.layer
        self._history = history
        self._steps = steps
        self._failures = failures
        self._unreadable: dict[int, Exception] = {}

    def save(self, path: Path, scale: SequenceScale) -> None:
        """Write a film, an animation or a video, depending on the suffix."""
        suffix = path.suffix.lower()
        if suffix == ".mp4":
            self._save_video(path, scale)
        elif suffix == ".gif":
            sequence = self._sequence(_MOST_GIF_FRAMES, _MOST_MOVING_PIXELS)
            content = evolution_gif(
                sequence, scale=scale, side=LARGE_SIDE, most_bytes=_MOST_GIF_BYTES
            )
            path.write_bytes(content)
        else:
            film_strip(self._sequence(MOST_COLUMNS, MOST_PIXELS), scale=scale).save(path)

    def _sequence(self, most: int, most_pixels: int) -> FilterSequence:
        with _progress(None, "snapshot", total=min(most, len(self._steps))) as bar:

            def read(step: int) -> Reading:
                bar.update()
                return self._read(step)

            sequences = read_sequences(self._steps, read, most=most, most_pixels=most_pixels)
        if not sequences:
            raise ValueError(f"found no snapshot of {self.name} that can be read")
        return sequences[self.name]

    def _save_video(self, path: Path, scale: SequenceScale) -> None:
        """Write a video of all snapshots. They are read twice: for the scale and for the frames."""
        ends = self._sequence(2, _MOST_MOVING_PIXELS)
        signs = ContinuousSigns()

        def noted() -> Iterator[Frame]:
            for frame in self._frames(ends, self._steps):
                signs.add(frame.step, frame.weights)
                yield frame

        largest, clipped = typical_magnitudes(noted())
        steps = [step for step in self._steps if step not in self._unreadable]
        half_ranges = to_half_ranges(largest, scale)
        ends = replace(ends, unreadable=ends.available - len(steps), clipped=clipped)
        renderer = FrameRenderer(
            ends, steps, half_ranges, scale=scale, side=LARGE_SIDE, is_even=True
        )
        frames = self._frames(ends, steps)
        if ends.crop.style.is_principal:
            frames = (with_signs(frame, signs) for frame in frames)
        rate = min(max(len(steps) // _SECONDS, _SLOWEST), _FASTEST)
        save_mp4(
            path,
            moving_pictures(renderer, frames, half_ranges),
            rate=rate,
            hold=_HOLD * rate,
            even=(renderer.layout.top, renderer.layout.left),
        )

    def _frames(self, ends: FilterSequence, steps: Sequence[int]) -> Iterator[Frame]:
        for step in _progress(steps, "snapshot"):
            try:
                reading = self._read(step)
            except (ValueError, OSError):
                continue
            yield Frame(step, reading.epoch, ends.crop.apply(reading.weights[self.name]))

    def _read(self, step: int) -> Reading:
        if step in self._unreadable:
            raise self._unreadable[step]
        try:
            return self._history.read(step)
        except (ValueError, OSError) as error:
            self._unreadable[step] = error
            if isinstance(error, OtherShapeError):
                self._failures.note(error)
            else:
                self._failures.report(error)
            raise


def _save_report(
    history: LayerHistory, path: Path, probe: str | None, notes: Sequence[str], failures: FileErrors
) -> None:
    from kernelviz_callback.commands.report import save_report
    from kernelviz_callback.probe.probe import load_probe

    save_report(
        history,
        path,
        probe=load_probe(probe) if probe else None,
        notes=notes,
        on_unread=lambda error: (
            failures.note(error) if isinstance(error, OtherShapeError) else failures.report(error)
        ),
        progress=lambda steps: _progress(steps, "snapshot"),
    )


def _progress(items: Sequence[Any] | None, unit: str, total: int | None = None) -> Any:
    return tqdm(items, unit=unit, total=total, delay=_QUICK, leave=False, disable=None)


def _open_first(names: dict[int, str], failures: FileErrors) -> Checkpoint:
    """Open the first checkpoint that can be opened. Those before it are reported and removed."""
    for step, name in list(names.items()):
        with failures.catch():
            return open_checkpoint(name)
        del names[step]
    raise ValueError("found no snapshot or checkpoint that can be read")


def _summary(names: Mapping[int, str], notes: Sequence[str]) -> list[str]:
    steps = list(names)
    if len(steps) == 1:
        return [f"1 snapshot, step {steps[0]}: there is no change to show yet", *notes]
    return [f"{len(steps)} snapshots, steps {steps[0]} to {steps[-1]}", *notes]
