"""Import Lightning by the name that the training uses: lightning or pytorch_lightning."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

_NAMES = ("lightning.pytorch", "pytorch_lightning")

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning.pytorch.utilities.seed import isolate_rng
else:

    def _find() -> str:
        """Find the name that is already imported, else the first name that can be imported."""
        for name in sorted(_NAMES, key=lambda name: name not in sys.modules):
            try:
                import_module(name)
            except ModuleNotFoundError as error:
                if error.name not in (name, name.partition(".")[0]):
                    raise
            else:
                return name
        raise ModuleNotFoundError(
            "KernelVizCallback needs Lightning, which is not installed; run: pip install lightning "
            "(KernelWatcher works without Lightning)"
        )

    _found = _find()
    Callback = import_module(_found).Callback
    isolate_rng = import_module(f"{_found}.utilities.seed").isolate_rng

__all__ = ["Callback", "isolate_rng"]
