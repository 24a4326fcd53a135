"""Training: watch the layers of a running training and record snapshots of them.

The Lightning callback, the watcher for other loops, the session behind both, and the threads that
draw and write beside the training. Imports ``snapshots`` and all below it; ``commands`` may import
it. Never imports ``checkpoints`` or ``comparison``.
"""
