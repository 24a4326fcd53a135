"""Checkpoints: the weights of convolutions out of any file.

Lightning checkpoints, whatever else torch.save wrote, safetensors, distributed checkpoints.
Nothing in a file is executed. Imports ``snapshots`` and all below it; ``comparison`` and
``commands`` may import it. Never imports ``training`` or Lightning.
"""
