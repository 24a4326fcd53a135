"""Read a model: find its convolutions, read the weights that they multiply with, run it.

Everything that touches an ``nn.Module`` lives here: effective weights under weight norm and
pruning, sharded weights put together, feature maps taken without a trace. Imports no other package
of ours; every package may import it.
"""
