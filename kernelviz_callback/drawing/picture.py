"""A finished picture: pixels, where each tile lies in them, and the files they become."""

import base64
import io
import os
import struct
import sys
import zlib
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageShow
from torch import Tensor

# A response grid is 900 pixels wide and its bytes are what a snapshot costs: TensorBoard's writer
# spends more time on the checksum of the JPEG than the convolution takes.
JPEG_QUALITY = 55  # of 95
JPEG_CHROMA = "4:2:0"
_BAND = 64  # rows that are filtered at once
_PNG_LEVEL = 3  # of 9: beyond it the time doubles for a tenth of the bytes
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif"}
# On Linux a program to show pictures may be there, and nothing for it to show them on.
_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")


@dataclass(frozen=True)
class Layout:
    """Where the tiles lie: row by row, one tile a filter, ``gap`` pixels apart.

    ``left`` and ``top`` are the first tile's corner, in pixels of the picture.
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
        """Height of the tiles and what stands above them; a margin follows."""
        return self.top + self.rows * (self.tile_height + self.gap)

    @property
    def width(self) -> int:
        """Width of the tiles and the left margin; captions may make the picture wider."""
        return self.left + self.columns * (self.tile_width + self.gap)

    def box(self, index: int, *, margin: int = 0) -> tuple[slice, slice]:
        """The rows and columns of tile ``index``, to index an (H, W, 3) array with.

        Args:
            index: Of the tile.
            margin: Pixels around it to take in.

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
    """A kernel grid or a response grid, ready to be looked at.

    Attributes:
        pixels: Shape (H, W, 3), uint8, on the CPU.
        layout: Where the tile of each filter lies.
        half_ranges: Shape (N,), float32: the magnitude drawn at the ends of each filter's colour
            scale, in units of the weights (or of weights x probe).
    """

    pixels: Tensor
    layout: Layout
    half_ranges: Tensor

    def tile(self, index: int) -> Tensor:
        """The tile of one filter: shape (tile height, tile width, 3), uint8."""
        rows, columns = self.layout.box(index)
        return self.pixels[rows, columns]

    def save(self, path: str | Path) -> None:
        """Write the picture to a file.

        Args:
            path: Its suffix chooses the format: ``.png``, ``.jpg`` and what else Pillow knows;
                ``.svg`` and ``.pdf`` hold the pixels without loss.

        Raises:
            ValueError: If the suffix is none of a picture.
            OSError: If it cannot be written.
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
        """Open the picture in the system's viewer; False if there is none."""
        has_screen = sys.platform != "linux" or any(map(os.environ.get, _SCREENS))
        return has_screen and bool(ImageShow.show(Image.fromarray(self.pixels.numpy())))

    def _repr_png_(self) -> bytes:
        return to_png(self.pixels)


def _save_vector(pixels: Tensor, path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": path.stem}):
        figure = Figure(dpi=72)
        figure.figimage(pixels.numpy(), resize=True)
        # Without the date the same picture is the same file.
        date = {"Date": None} if path.suffix.lower() == ".svg" else {"CreationDate": None}
        figure.savefig(path, dpi=72, metadata=date)


@dataclass(frozen=True)
class EncodedImage:
    """A picture as the bytes of a file. ``suffix`` is ".png", ".jpg" or ".gif"."""

    content: bytes
    height: int
    width: int
    suffix: str

    @classmethod
    def png(cls, pixels: Tensor) -> "EncodedImage":
        """Encode (H, W, 3) uint8 pixels without loss."""
        return cls(to_png(pixels), pixels.shape[0], pixels.shape[1], ".png")

    @classmethod
    def jpeg(cls, pixels: Tensor) -> "EncodedImage":
        """Encode (H, W, 3) uint8 pixels with little loss, in a fifth of the bytes."""
        return cls(to_jpeg(pixels), pixels.shape[0], pixels.shape[1], ".jpg")

    @classmethod
    def gif(cls, content: bytes) -> "EncodedImage":
        """Take an animation as it is; its size is in its header."""
        width, height = struct.unpack_from("<HH", content, len(b"GIF89a"))
        return cls(content, height, width, ".gif")

    def to_html(self, title: str) -> str:
        """An ``<img>`` with the bytes inside, of which two have room beside each other."""
        kind = _MEDIA_TYPES[self.suffix]
        data = base64.b64encode(self.content).decode()
        return (
            f'<img alt="{escape(title)}" title="{escape(title)}" src="data:{kind};base64,{data}" '
            'style="display:inline-block;vertical-align:top;max-width:49%;margin:2px">'
        )


def to_png(pixels: Tensor) -> bytes:
    """Encode (H, W, 3) uint8 pixels as PNG, without loss: right for kernels.

    Enlarged kernels are rows that repeat the one above (filter 2) and runs along a row (filter 1).
    To say so takes half the time of trying every filter on every row, as Pillow does.
    """
    height, width, _ = pixels.shape
    rows = pixels.numpy().reshape(height, -1)
    deflate = zlib.compressobj(_PNG_LEVEL)
    data = []
    for top in range(0, height, _BAND):
        band = rows[top : top + _BAND]
        filtered = np.empty((len(band), 1 + 3 * width), np.uint8)
        filtered[:, 0] = 1
        filtered[:, 1:4] = band[:, :3]
        np.subtract(band[:, 3:], band[:, :-3], out=filtered[:, 4:])
        above = rows[max(0, top - 1) : top + len(band) - 1]
        below = slice(len(band) - len(above), None)
        filtered[below][(band[below] == above).all(1)] = [2] + [0] * 3 * width
        data.append(deflate.compress(filtered.data))
    data.append(deflate.flush())
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits of each RGB
    parts = {b"IHDR": header, b"IDAT": b"".join(data), b"IEND": b""}
    return _PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in parts.items()
    )


def to_jpeg(pixels: Tensor) -> bytes:
    """Encode (H, W, 3) uint8 pixels as JPEG, with little loss: right for responses."""
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(
        file, "JPEG", quality=JPEG_QUALITY, subsampling=JPEG_CHROMA
    )
    return file.getvalue()
