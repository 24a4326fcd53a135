"""The probe: the fixed image that every filter of a training is convolved with.

The built-in test chart, images of the user, and the energy of the response of a filter to a probe.
Imports ``filters`` and ``model``; ``health``, ``drawing`` and every package above them may import
it.
"""
