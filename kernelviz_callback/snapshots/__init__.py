"""Snapshots: the exact weights of the watched layers at one step.

``snapshot.py`` has the record, ``format.py`` its file, ``names.py`` the names of files,
``probe_file.py`` the saved probe, and ``event.py`` the event for the Kernels tab. This package
imports ``drawing`` and all below it, and the codec of ``tensorboard_plugin``. ``checkpoints``,
``training`` and everything above them may import it.
"""
