"""Lightning, under whichever of its two names the training has it."""

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning.pytorch.utilities.seed import isolate_rng
elif find_spec("lightning") is None or (
    "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
):
    from pytorch_lightning import Callback
    from pytorch_lightning.utilities.seed import isolate_rng
else:
    from lightning.pytorch import Callback
    from lightning.pytorch.utilities.seed import isolate_rng

__all__ = ["Callback", "isolate_rng"]
