"""Loggers: the places that the pictures and numbers of a training go to.

There is one small class for each kind of logger: TensorBoard, web services (Weights & Biases),
a notebook cell, and loggers that the user registers. This package imports ``drawing`` and the
packages below it. Only ``training`` may import it.
"""
