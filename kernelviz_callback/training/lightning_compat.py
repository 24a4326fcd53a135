"""Import Lightning by the name that the training uses: lightning or pytorch_lightning."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from kernelviz_callback.storage import as_absolute

_NAMES = ("lightning.pytorch", "pytorch_lightning")

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer
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

__all__ = ["Callback", "has_callback", "is_fitting", "isolate_rng", "log_dir_of"]


def log_dir_of(trainer: "Trainer") -> str:
    """Return the folder of the first TensorBoard logger, or else the one that Lightning chooses.

    A relative path is made absolute, because the training may change the working directory.
    Every process must call this function, because ``trainer.log_dir`` is broadcast.
    """
    chosen = trainer.log_dir or trainer.default_root_dir
    boards = [x.log_dir for x in trainer.loggers if "TensorBoardLogger" in _class_names(x)]
    return str(as_absolute(next(filter(None, boards), chosen)))


def is_fitting(trainer: "Trainer") -> bool:
    """Whether the trainer is in its ``fit`` now. After an exception it is not."""
    return trainer.state.fn == "fit" and trainer.state.status == "running"


def has_callback(trainer: "Trainer", *names: str) -> bool:
    """Whether the trainer has a callback of one of these classes of Lightning.

    The classes are given by name, because not every version of Lightning has all of them.
    """
    found = trainer.callbacks  # type: ignore[attr-defined]
    return any(not _class_names(callback).isdisjoint(names) for callback in found)


def _class_names(thing: object) -> set[str]:
    """Names of the class and its base classes.

    `isinstance` is of no use: the two packages of Lightning have each class twice.
    """
    return {kind.__name__ for kind in type(thing).__mro__}
