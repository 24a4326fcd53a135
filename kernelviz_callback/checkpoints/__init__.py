"""Checkpoints: read the weights of convolutions out of any file.

It opens Lightning checkpoints, other files of ``torch.save``, safetensors files, our snapshots and
distributed checkpoints. Nothing in a file is executed. This package imports ``snapshots`` and all
below it. ``comparison`` and ``commands`` may import it. It never imports ``training`` or Lightning.
"""
