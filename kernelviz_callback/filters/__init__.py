"""Compute numbers of filters: pure functions that map a tensor of weights to other tensors.

Measures, spectrum, similarity, principal planes, frequency gain and the responses to a probe.
The functions do not change their arguments, move no tensor between devices and have no state.
Imports torch and no other package of ours; every package except ``model`` and
``tensorboard_plugin`` may import it.
"""
