"""Drawing: from tensors to pictures.

``tile_style`` decides how a filter is drawn, and ``grid`` draws a tile for each filter. Captions,
verdict frames, colours, curves and the encoders of PNG and JPEG have a module each.
``drawing.animation`` makes film strips, GIF and MP4. Imports ``health``, ``probe``, ``filters`` and
``model``. ``snapshots`` and the packages above it may import it.
"""
