"""The arrangement of a grid: its columns, and how far tiles are enlarged or responses shrunk."""

from math import ceil, sqrt

from kernelviz_callback.drawing.curves import curve_width

GRID_SIDE = 900  # pixels: TensorBoard and a laptop show this without shrinking
GRID_SLACK = 56  # pixels that a response grid may exceed GRID_SIDE by before it is shrunk again
LARGEST_KERNEL = 56  # pixels: kernels are not enlarged beyond this
SMALLEST_CURVE = 24  # pixels: curves are not drawn lower than this
SMALLEST_TILE = 32  # pixels: responses are not shrunk below this, ...
LARGEST_SIDE = 1800  # pixels: ... unless their grid would be larger than this
GAP = 2  # pixels between tiles; three times as much if a tile is itself a row


def square_columns(filters: int, tile_height: int, tile_width: int) -> int:
    """Return the number of columns for a grid that is about as high as wide.

    Example:
        >>> square_columns(64, 7, 7), square_columns(64, 7, 21)
        (8, 5)
    """
    return min(filters, max(1, ceil(sqrt(filters * tile_height / tile_width) - 1e-9)))


def arrange_tiles(filters: int, height: int, width: int, largest_zoom: int) -> tuple[int, int]:
    """Choose columns and enlargement for a grid that is about square and fills the screen.

    Args:
        filters: Number of tiles.
        height: Height of a tile before it is enlarged, in pixels.
        width: Width of a tile before it is enlarged, in pixels.
        largest_zoom: Tiles are not enlarged by more than this.

    Returns:
        The number of columns, and the whole factor by which tiles are enlarged.
    """
    columns = square_columns(filters, height, width)
    room = GRID_SIDE // max(columns * width, ceil(filters / columns) * height)
    return columns, max(1, min(room, largest_zoom))


def curve_height(filters: int, pictures: int, points: int, largest: int) -> int:
    """Return the largest even height at which a grid of curves is no larger than `LARGEST_SIDE`.

    Args:
        filters: Number of tiles.
        pictures: Number of curves side by side in a tile.
        points: Number of points of a curve.
        largest: The height to begin with, even, in pixels.

    Returns:
        Pixels, never less than `SMALLEST_CURVE`: a lower curve cannot be read.
    """
    for height in range(largest, SMALLEST_CURVE, -2):
        width = pictures * (curve_width(points, height) + GAP)
        columns = square_columns(filters, height, width)
        if max(columns * width, ceil(filters / columns) * (height + GAP)) <= LARGEST_SIDE:
            return height
    return SMALLEST_CURVE


def arrange_matrix(filters: int, width: int, between: int) -> tuple[int, int]:
    """Choose columns and enlargement for the rows of a matrix: one column if there is room.

    Args:
        filters: Number of rows.
        width: Number of cells in a row.
        between: Pixels between rows.

    Returns:
        The number of columns, and the height and width of a cell in pixels.
    """
    for zoom in range(LARGEST_KERNEL, 0, -1):
        columns = ceil(filters / (GRID_SIDE // (zoom + between)))
        if columns * zoom * width <= GRID_SIDE:
            return columns, zoom
    return square_columns(filters, 1 + between, width), 1


def fitting_shrink(filters: int, pictures: int, height: int, width: int) -> int:
    """Return the whole factor by which responses are shrunk so that their grid fits the screen.

    Args:
        filters: Number of tiles in the grid.
        pictures: Number of pictures side by side in a tile. Three planes in colour are one picture.
        height: Height of a full-size response, in pixels.
        width: Width of a full-size response, in pixels.

    Example:
        >>> fitting_shrink(64, 1, 218, 218)
        2
    """
    columns = square_columns(filters, height, pictures * width)
    side = max(columns * pictures * width, ceil(filters / columns) * height)
    fitting = min(ceil(side / (GRID_SIDE + GRID_SLACK)), min(height, width) // SMALLEST_TILE)
    return max(1, fitting, min(ceil(side / LARGEST_SIDE), height, width))
