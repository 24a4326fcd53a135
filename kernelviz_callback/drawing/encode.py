"""Encoding of pixels as PNG or JPEG."""

import base64
import io
import struct
import zlib
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image
from torch import Tensor

try:
    from isal.isal_zlib import compressobj
except ImportError:  # there are processors for which isal has no wheel
    from zlib import compressobj  # type: ignore[assignment]

# A response grid is 900 pixels wide, and its bytes set the cost of a snapshot: TensorBoard's writer
# spends more time on the checksum of the JPEG than the convolution takes.
JPEG_QUALITY = 55  # of 95
JPEG_CHROMA = "4:2:0"
_BAND = 64  # rows that are filtered together
_PNG_LEVEL = (
    1  # of isal's 3, of zlib's 9: higher ones take twice the time for 1 to 10 % fewer bytes
)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif"}


@dataclass(frozen=True)
class EncodedImage:
    """A picture as the bytes of an image file.

    Attributes:
        content: Bytes of the file.
        height: Height in pixels.
        width: Width in pixels.
        suffix: ".png", ".jpg" or ".gif".
    """

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
        """Encode (H, W, 3) uint8 pixels with little loss; a fifth of the size of a PNG."""
        return cls(to_jpeg(pixels), pixels.shape[0], pixels.shape[1], ".jpg")

    @classmethod
    def gif(cls, content: bytes) -> "EncodedImage":
        """Wrap the bytes of a GIF; height and width are read from its header."""
        width, height = struct.unpack_from("<HH", content, len(b"GIF89a"))
        return cls(content, height, width, ".gif")

    def to_html(self, title: str) -> str:
        """Return an ``<img>`` element that holds the bytes; two of them fit side by side."""
        kind = _MEDIA_TYPES[self.suffix]
        data = base64.b64encode(self.content).decode()
        return (
            f'<img alt="{escape(title)}" title="{escape(title)}" src="data:{kind};base64,{data}" '
            'style="display:inline-block;vertical-align:top;max-width:49%;margin:2px">'
        )


def to_png(pixels: Tensor) -> bytes:
    """Encode (H, W, 3) uint8 pixels as PNG, without loss: the format for kernels.

    PNG has filters that predict a row before it is compressed. Enlarged kernels have rows that
    repeat the row above (filter 2, "up") and runs of one colour along a row (filter 1, "sub").
    Choosing between these two takes half the time of trying every filter on every row, which Pillow
    does.
    """
    height, width, _ = pixels.shape
    rows = pixels.numpy().reshape(height, -1)
    deflate = compressobj(_PNG_LEVEL)
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
    """Encode (H, W, 3) uint8 pixels as JPEG, with little loss: the format for responses."""
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(
        file, "JPEG", quality=JPEG_QUALITY, subsampling=JPEG_CHROMA
    )
    return file.getvalue()
