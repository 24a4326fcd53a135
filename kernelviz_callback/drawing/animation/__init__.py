"""Animation: a layer through a training as a film strip, a GIF or a video.

Chooses the snapshots to show, crops them, and draws the frames. Imports the rest of ``drawing``;
``training`` and ``commands`` may import it.
"""
