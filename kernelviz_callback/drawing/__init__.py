"""Drawing: from tensors to pictures.

How a tile looks, grids of tiles, captions, frames of verdicts, and the encoders of PNG and JPEG.
``drawing.animation`` makes film strips, GIF and MP4. Imports ``health``, ``probe``, ``filters`` and
``model``; ``snapshots`` and all that comes after it may import it.
"""
