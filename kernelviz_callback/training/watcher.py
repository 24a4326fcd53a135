"""The observer for those who train without a Lightning Trainer."""

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.tensorboard import SummaryWriter
from typing_extensions import Self

from kernelviz_callback.console import is_rank_zero
from kernelviz_callback.drawing.layer_pictures import Response
from kernelviz_callback.model.convolutions import check_layers
from kernelviz_callback.probe.probe import BATCH_SOURCES, ProbeSource, check_probe_size, load_probe
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.health_logging import log_numbers
from kernelviz_callback.training.renderer import ScaleName
from kernelviz_callback.training.run_state import RunState
from kernelviz_callback.training.session import Session, Style
from kernelviz_callback.training.watched_layers import WatchedLayers


class KernelWatcher:
    """Watch filters form, die, duplicate or stay noise in a training loop of your own.

    Writes what `KernelVizCallback` writes, and disturbs as little: `snapshot` copies the weights
    and returns, the rest happens beside the training, and what fails is told and ends nothing.

    Where several processes train together, each makes a watcher and takes the same snapshots: the
    first writes, and sharded weights are gathered by all.

    Args:
        model: The network, with or without the wrappers of a strategy or of ``torch.compile``.
        log_dir: Path or URL; the snapshots go to its folder ``kernelviz``.
        layers: See `KernelVizCallback`, as for the other options.
        probe: Likewise, without ``"train_batch"`` and ``"val_batch"``: pass the image itself.
        probe_size: Likewise.
        response: Likewise.
        scale: Likewise.
        health: Likewise.
        live: Likewise.
        loggers: Who gets the pictures: a ``SummaryWriter``, loggers of Lightning's, one of your own
            (see `register_logger`). None for TensorBoard in ``log_dir``; pass the writer that you
            have if it writes there already, for two hide each other's live numbers. An empty list
            for pictures as files.

    Raises:
        ValueError: For a bad value, a layer that cannot be found or a probe that does not fit it.
        TypeError: For an argument of another type.
        FileNotFoundError: If the probe's path does not exist.

    Example:
        >>> import tempfile, torch
        >>> net = nn.Conv2d(3, 8, 5)
        >>> with tempfile.TemporaryDirectory() as log_dir, KernelWatcher(net, log_dir) as watcher:
        ...     for step in range(3):
        ...         watcher.snapshot(step)
        ...         with torch.no_grad():
        ...             _ = net.weight.mul_(0.9)
    """

    def __init__(
        self,
        model: nn.Module,
        log_dir: str | Path,
        *,
        layers: str | Sequence[str] | None = None,
        probe: ProbeSource = None,
        probe_size: int = 224,
        response: Response = "channels",
        scale: ScaleName = "filter",
        health: bool = True,
        live: bool = True,
        loggers: Iterable[Any] | None = None,
    ) -> None:
        check_layers(layers)
        check_probe_size(probe_size)
        if isinstance(probe, str) and probe in BATCH_SOURCES:
            raise ValueError(
                f"probe={probe!r} needs a Trainer, whose batches the callback sees; pass an image "
                "of the data itself"
            )
        self._style = Style(response, scale, health, live)
        self._log_dir = str(log_dir)
        self._probe = load_probe(probe, size=probe_size)
        self._watched = WatchedLayers(model, layers)
        self._watched.check_fit(self._probe)
        self._is_first = is_rank_zero()
        self._own_board = _TensorBoard(self._log_dir) if loggers is None else None
        self._loggers = list(loggers) if loggers is not None else [self._own_board]
        self._numbers: deque[tuple[int, Future[dict[str, float]]]] = deque()
        self._session = self._observe(RunState())

    def __enter__(self) -> Self:
        """Watch until the block is left."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close, whatever ended the block."""
        self.close()

    def snapshot(self, step: int, *, epoch: int = 0) -> None:
        """Record the layers as they are now; the same step again changes nothing.

        Where a deeper layer is watched the model is run on the probe first, see `feature_maps`.

        Args:
            step: Optimizer steps so far, a whole number: the axis that the pictures stand on.
            epoch: For captions, and for the films: they are drawn once 4, 8, 16, ... epochs are
                over, and when the watcher is closed.

        Raises:
            TypeError: If ``step`` or ``epoch`` is no whole number.
            ValueError: If one is negative.
        """
        step, epoch = index(step), index(epoch)
        if step < 0 or epoch < 0:
            raise ValueError(f"step and epoch count from 0; found step={step}, epoch={epoch}")
        if self._session.is_due(step):
            scalars = self._session.record(step, epoch, self._loggers)
            if scalars is not None:
                self._numbers.append((step, scalars))
        self._log_numbers(wait=False)

    def close(self) -> None:
        """Let everything be written. A snapshot after that goes on in the same folder."""
        self._log_numbers(wait=True)
        self._session.close()
        if self._own_board is not None:
            self._own_board.close()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to go on in the same folder, on the same scale."""
        return self._session.state.to_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the training whose `state_dict` this is; before the first snapshot.

        Raises:
            RuntimeError: After a snapshot.
        """
        if self._session.seen_step is not None:
            raise RuntimeError("load_state_dict must come before the first snapshot")
        self._session = self._observe(RunState.from_dict(state_dict))

    def _log_numbers(self, *, wait: bool) -> None:
        """Give numbers to loggers that only the training's own thread may use."""
        takers = [logger for logger in self._loggers if hasattr(logger, "log_metrics")]
        while self._numbers and (wait or self._numbers[0][1].done()):
            step, scalars = self._numbers.popleft()
            failures = Failures()
            log_numbers(takers, scalars, step, failures)
            self._session.reporter.report(failures, step)

    def _observe(self, state: RunState) -> Session:
        return Session(
            self._watched,
            self._probe,
            self._log_dir,
            style=self._style,
            state=state,
            keep=self._is_first,
        )


class _TensorBoard:
    """A logger that makes its file when it is first written to: to fail then ends nothing."""

    def __init__(self, log_dir: str) -> None:
        self._log_dir = log_dir

    @cached_property
    def experiment(self) -> SummaryWriter:
        return SummaryWriter(self._log_dir)

    def close(self) -> None:
        if "experiment" in vars(self):
            self.experiment.close()
