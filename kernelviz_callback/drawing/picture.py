"""A finished picture: its pixels, the layout of its tiles, and saving it to a file."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageShow
from torch import Tensor

from kernelviz_callback.drawing.encode import to_jpeg, to_png

# Linux has a screen if one of these environment variables is set.
_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")


@dataclass(frozen=True)
class Layout:
    """Where the tiles of a picture are: row by row, one tile for each filter.

    Attributes:
        filters: Number of tiles.
        columns: Number of tiles in a row.
        tile_height: Height of a tile, in pixels.
        tile_width: Width of a tile, in pixels.
        left: Left edge of the first tile, in pixels.
        top: Upper edge of the first tile, in pixels.
        gap: Pixels between tiles.
    """

    filters: int
    columns: int
    tile_height: int
    tile_width: int
    left: int = 0
    top: int = 0
    gap: int = 2

    @property
    def rows(self) -> int:
        """Number of rows; the last one may be short."""
        return -(-self.filters // self.columns)

    @property
    def height(self) -> int:
        """Height of the tiles and what is above them; a margin follows."""
        return self.top + self.rows * (self.tile_height + self.gap)

    @property
    def width(self) -> int:
        """Width of the tiles and the left margin; captions may make the picture wider."""
        return self.left + self.columns * (self.tile_width + self.gap)

    def box(self, index: int, *, margin: int = 0) -> tuple[slice, slice]:
        """Return the rows and columns of a tile, as the index of an (H, W, 3) array.

        Args:
            index: Number of the tile, from 0.
            margin: Number of pixels around the tile to include.

        Example:
            >>> Layout(filters=4, columns=2, tile_height=5, tile_width=7).box(3)
            (slice(7, 12, None), slice(9, 16, None))
        """
        row, column = divmod(index, self.columns)
        top = self.top + row * (self.tile_height + self.gap)
        left = self.left + column * (self.tile_width + self.gap)
        return (
            slice(top - margin, top + self.tile_height + margin),
            slice(left - margin, left + self.tile_width + margin),
        )


@dataclass(frozen=True)
class Picture:
    """A kernel grid, a response grid or another picture with a tile for each filter.

    Attributes:
        pixels: Shape (H, W, 3), uint8, on the CPU.
        layout: Where the tile of each filter is.
        half_ranges: The magnitude at the ends of each filter's colour scale, shape (N,), float32,
            in units of the weights (or of weights x probe).
    """

    pixels: Tensor
    layout: Layout
    half_ranges: Tensor

    def tile(self, index: int) -> Tensor:
        """Return the tile of one filter: shape (tile height, tile width, 3), uint8."""
        rows, columns = self.layout.box(index)
        return self.pixels[rows, columns]

    def save(self, path: str | Path) -> None:
        """Write the picture to a file.

        Args:
            path: Path of the file. Its suffix sets the format: ``.png``, ``.jpg``, or another
                format that Pillow can write; ``.svg`` and ``.pdf`` hold the pixels without loss.

        Raises:
            ValueError: If the suffix is not one of an image format.
            OSError: If the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in (".svg", ".pdf"):
            _save_vector(self.pixels, path)
        elif suffix in (".jpg", ".jpeg"):
            path.write_bytes(to_jpeg(self.pixels))
        else:
            Image.fromarray(self.pixels.numpy()).save(path)

    def show(self) -> bool:
        """Open the picture in the system's image viewer; return False if there is none."""
        has_screen = sys.platform != "linux" or any(map(os.environ.get, _SCREENS))
        return has_screen and bool(ImageShow.show(Image.fromarray(self.pixels.numpy())))

    def _repr_png_(self) -> bytes:
        return to_png(self.pixels)


def _save_vector(pixels: Tensor, path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "kernelviz"}):
        figure = Figure(dpi=72)
        figure.figimage(pixels.numpy(), resize=True)
        # Without a date and with a fixed salt, the same picture always gives the same bytes.
        date = {"Date": None} if path.suffix.lower() == ".svg" else {"CreationDate": None}
        figure.savefig(path, dpi=72, metadata=date)
