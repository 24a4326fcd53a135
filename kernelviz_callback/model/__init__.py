"""Read a model: find its convolutions, read the weights that they multiply with, run it.

All code that reads or runs an ``nn.Module`` is here: effective weights under weight norm and
pruning, gathering of sharded weights, feature maps whose recording leaves the model unchanged.
Imports no other package of ours; every package except ``filters`` may import it.
"""
