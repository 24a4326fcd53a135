"""The font of all text in pictures."""

from functools import cache
from math import ceil

from PIL import ImageFont


@cache
def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the font in a size, in pixels."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Width of a text in pixels, rounded up."""
    return ceil(load_font(size).getlength(text))
