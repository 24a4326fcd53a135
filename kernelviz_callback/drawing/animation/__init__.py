"""Animation: a layer through a training as a film strip, a GIF or a video.

``sampling`` chooses and reads the snapshots, ``crop`` chooses the part of a layer that is drawn,
and the other modules draw it. Imports the rest of ``drawing``; ``training`` and ``commands`` may
import it.
"""
