"""The probe: the one fixed image that every filter is convolved with.

The built-in test chart, images of the user, and the energy that a probe has under a kernel.
Imports ``filters``; ``health``, ``drawing`` and all that comes after them may import it.
"""
