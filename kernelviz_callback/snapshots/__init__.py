"""Snapshots: the exact weights of the watched layers at one step.

The record, its file and its names, the saved probe, and the event for the Kernels tab. Imports
``drawing`` and all below it, and the codec of ``tensorboard_plugin``; ``checkpoints`` and
``training`` may import it.
"""
