"""Training: watch the layers of a running training and record snapshots of them.

This package has the Lightning callback, the watcher for other training loops, the session that
both use, and the background threads that write and draw. It imports ``snapshots`` and the packages
below it. ``commands`` may import it. It never imports ``checkpoints`` or ``comparison``.
"""
