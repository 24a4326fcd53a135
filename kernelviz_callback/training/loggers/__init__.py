"""Loggers: where pictures and numbers of a training go.

One small class for each kind of logger: TensorBoard, services on the web, a notebook, and those
that the user registers. Imports ``drawing`` and ``snapshots``; ``training`` may import it.
"""
