"""Numbers of filters: pure functions from a tensor of weights to tensors.

Measures, spectrum, similarity, principal planes, frequency gain and the per-channel convolution.
They change no argument, move nothing between devices and keep no state. Imports torch and nothing
else of ours; every package may import it.
"""
