"""Write a comparison to files: pictures, a page, numbers, or events for TensorBoard."""

import csv
import io
import json
from collections.abc import Callable
from math import isnan
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
    """Write a comparison to a file. The suffix of the file selects the format.

    Args:
        comparison: The comparison.
        path: ``.png``, ``.svg`` or ``.pdf`` for the picture, ``.html`` for a page, ``.json`` or
            ``.csv`` for the numbers.
        scale: Scale of the colours in the picture, see `comparison_picture`.
        responses_to: Probe of the picture, see `comparison_picture`.

    Raises:
        ValueError: If the suffix is another one.
        OSError: If the file cannot be written.
    """
    texts: dict[str, Callable[[Comparison], str]] = {
        ".html": comparison_page,
        ".json": _json,
        ".csv": _csv,
    }
    suffix = path.suffix.lower()
    if suffix in texts:
        # Names of checkpoints are in the text, and may have bytes that are not valid Unicode.
        path.write_text(texts[suffix](comparison), encoding="utf-8", errors="replace")
    else:
        comparison_picture(comparison, scale=scale, responses_to=responses_to).save(path)


def log_comparison(comparison: Comparison, folder: str) -> None:
    """Write a comparison as an event file for TensorBoard.

    The numbers and kernels of a checkpoint are logged at its step, the strips at the last step. If
    a checkpoint does not state its step, all are logged at their indices. Kernels are logged for
    the checkpoints whose weights were kept.

    Args:
        comparison: The comparison.
        folder: Folder of the event file.

    Raises:
        OSError: If the file cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    try:
        opened = SummaryWriter(folder)
    except OSError as error:
        raise OSError(f"{folder}: it cannot be written: {error.strerror}") from error
    with opened as writer:
        layer = comparison.first.layer
        steps = _steps(comparison.columns)
        for step, column in zip(steps, comparison.columns, strict=True):
            for name, value in comparison.numbers(column).items():
                if not isnan(value):
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
    steps = [column.step for column in columns if column.step is not None]
    return (
        steps if len(steps) == len(columns) and len(set(steps)) > 1 else list(range(len(columns)))
    )


def _json(comparison: Comparison) -> str:
    return json.dumps(comparison.to_dict(), indent=1)


def _csv(comparison: Comparison) -> str:
    rows = comparison.to_rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
