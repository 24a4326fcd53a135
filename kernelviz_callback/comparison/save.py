"""A comparison in files: for eyes, for programs, for TensorBoard."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from kernelviz_callback.comparison.comparison import Column, Comparison, comparison_picture
from kernelviz_callback.comparison.page import comparison_page
from kernelviz_callback.comparison.strips import StripScale
from kernelviz_callback.drawing.layer_pictures import kernel_picture
from kernelviz_callback.probe.probe import Probe

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")


def save_comparison(
    comparison: Comparison,
    path: Path,
    *,
    scale: StripScale = "layer",
    responses_to: Probe | None = None,
) -> None:
    """Write a comparison to a file; its suffix chooses what is written.

    Args:
        comparison: What was found.
        path: ``.png``, ``.svg`` or ``.pdf`` for the picture, ``.html`` for a page, ``.json`` or
            ``.csv`` for the numbers.
        scale: Of the picture; see `comparison_picture`.
        responses_to: Likewise.

    Raises:
        ValueError: For another suffix.
        OSError: If it cannot be written.
    """
    texts: dict[str, Callable[[Comparison], str]] = {
        ".html": comparison_page,
        ".json": _json,
        ".csv": _csv,
    }
    suffix = path.suffix.lower()
    if suffix in texts:
        # The name of a file may hold bytes that are no text.
        path.write_text(texts[suffix](comparison), encoding="utf-8", errors="replace")
    else:
        comparison_picture(comparison, scale=scale, responses_to=responses_to).save(path)


def log_comparison(comparison: Comparison, folder: str) -> None:
    """Write a comparison as an event file, for TensorBoard.

    The numbers of each checkpoint and the kernels of those that are pictured stand at its step (or
    its place, where a checkpoint does not tell its step), the comparison at the last one's.

    Raises:
        OSError: If it cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:
        layer = comparison.first.layer
        steps = _steps(comparison.columns)
        for step, column in zip(steps, comparison.columns, strict=True):
            for name, value in comparison.numbers(column).items():
                if value == value:
                    writer.add_scalar(f"compare/{layer}/{name}", value, step)
            if column.weights is not None:
                picture = kernel_picture(
                    column.weights,
                    layer=column.layer,
                    groups=column.geometry.groups,
                    when=column.label,
                    health=column.health,
                )
                pixels = picture.pixels.numpy()
                writer.add_image(f"kernels/{layer}", pixels, step, dataformats="HWC")
        pixels = comparison_picture(comparison).pixels.numpy()
        writer.add_image(f"compare/{layer}", pixels, steps[-1], dataformats="HWC")


def _steps(columns: tuple[Column, ...]) -> list[int]:
    told = [column.step for column in columns if column.step is not None]
    return told if len(told) == len(columns) and len(set(told)) > 1 else list(range(len(columns)))


def _json(comparison: Comparison) -> str:
    return json.dumps(comparison.to_dict(), indent=1)


def _csv(comparison: Comparison) -> str:
    rows = comparison.to_rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
