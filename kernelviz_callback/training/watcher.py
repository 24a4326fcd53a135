"""`KernelWatcher`: watch filters in a training loop without a Lightning Trainer."""

import os
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

from kernelviz_callback.console import process_rank, say_everywhere
from kernelviz_callback.drawing.layer_pictures import Response, map_shrink
from kernelviz_callback.model.convolutions import check_layers
from kernelviz_callback.probe.probe import BATCH_SOURCES, ProbeSource, check_probe_size, load_probe
from kernelviz_callback.storage import as_absolute
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.health_logging import log_numbers
from kernelviz_callback.training.job_queue import JobQueue
from kernelviz_callback.training.program_end import close_first_at_end
from kernelviz_callback.training.renderer import ScaleName
from kernelviz_callback.training.run_state import RunState
from kernelviz_callback.training.session import Session, Style
from kernelviz_callback.training.watched_layers import WatchedLayers

_CLOSE_PATIENCE = 10.0  # seconds to wait for the own event file


class KernelWatcher:
    """Show how the filters of a network develop, in a training loop without a Trainer.

    The watcher writes the same files and pictures as `KernelVizCallback`. It does not decide when a
    snapshot is due: call `snapshot` in the loop. That method copies the weights and returns.
    Drawing and logging run in background threads. If a file or a picture cannot be made, a warning
    says what is lost, and the training goes on.

    If several processes train together, in a process group of ``torch.distributed``, each makes a
    watcher and takes the same snapshots. Sharded weights are gathered from all processes. Rank zero
    writes, and the others say that they do not. Processes without a process group train
    independently, whatever variables such as ``RANK`` say: each of them writes.

    Args:
        model: The network, with or without the wrappers of a training strategy or of
            ``torch.compile``.
        log_dir: Path or URL. The snapshots are written to its folder ``kernelviz``.
        layers: See `KernelVizCallback`.
        probe: See `KernelVizCallback`. ``"train_batch"`` and ``"val_batch"`` are not possible here:
            pass the image itself.
        probe_size: See `KernelVizCallback`.
        response: See `KernelVizCallback`.
        scale: See `KernelVizCallback`.
        health: See `KernelVizCallback`.
        live: See `KernelVizCallback`.
        loggers: The loggers that get pictures and numbers: a ``SummaryWriter``, loggers of
            Lightning, or loggers of your own (see `register_logger`). None for a new TensorBoard
            writer in ``log_dir``. If your loop has a writer for this folder, pass that one: of two
            writers in one folder, TensorBoard shows the live values of only one. With an empty
            list, the pictures are written to files.

    Raises:
        ValueError: If an argument has a bad value, if a layer cannot be found, or if it cannot read
            the probe.
        TypeError: If an argument has a wrong type.
        FileNotFoundError: If the path of the probe does not exist.

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
                "of the data instead"
            )
        self._style = Style(response, scale, health, live)
        self._log_dir = str(as_absolute(log_dir))
        image = load_probe(probe, size=probe_size)
        self._watched = WatchedLayers(model, layers, map_shrink=map_shrink, probe=image)
        self._probe = self._watched.check_fit(image)
        self._own_board = _TensorBoard(self._log_dir) if loggers is None else None
        self._loggers = list(loggers) if loggers is not None else [self._own_board]
        self._numbers: deque[tuple[int, Future[dict[str, float]]]] = deque()
        self._restored = RunState()
        close_first_at_end(self)

    def __enter__(self) -> Self:
        """Return the watcher itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Call `close`, also after an exception."""
        self.close()

    def snapshot(self, step: int, *, epoch: int = 0) -> None:
        """Record the current weights. A second call at the same step changes nothing.

        If a deeper layer is watched, the model is run on the probe first, see `feature_maps`.

        At step 0 nothing is recorded if the model has a lazy convolution that got no input yet.

        Args:
            step: Optimizer steps so far, a whole number. The pictures are logged at this step.
            epoch: Number of the epoch, from 0. It is shown in captions. The films are drawn after
                4, 16, 64, ... epochs and when the watcher is closed.

        Raises:
            TypeError: If ``step`` or ``epoch`` is not a whole number.
            ValueError: If ``step`` or ``epoch`` is negative.
        """
        step, epoch = index(step), index(epoch)
        if step < 0 or epoch < 0:
            raise ValueError(f"step and epoch must be 0 or more; found step={step}, epoch={epoch}")
        if step > 0:  # then a batch was trained
            self._session.stop_waiting()
        if self._session.is_due(step):
            scalars = self._session.record(step, epoch, self._loggers)
            if scalars is not None:
                self._numbers.append((step, scalars))
        self._log_numbers()

    def close(self) -> None:
        """Wait until everything is written. A later snapshot is written to the same folder."""
        self._session.close()
        self._log_numbers()
        if self._own_board is not None:
            failures = Failures()
            with failures.survive("close the event file", "its last events may be lost"):
                self._own_board.close()
            self._session.reporter.report(failures, self._session.seen_step or 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the state with which a resumed training continues in the same folder."""
        return self._session.state.to_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the training that has this state. Call this before the first snapshot.

        Args:
            state_dict: Result of `state_dict`.

        Raises:
            RuntimeError: If a snapshot was taken before.
        """
        if self._session.seen_step is not None:
            raise RuntimeError("load_state_dict must be called before the first snapshot")
        self._restored = RunState.from_dict(state_dict)
        self._watched.continue_with(self._restored.layers)
        del self._session

    def _log_numbers(self) -> None:
        """Log the numbers that are ready to loggers that only the training's thread may call."""
        loggers = [logger for logger in self._loggers if hasattr(logger, "log_metrics")]
        while self._numbers and self._numbers[0][1].done():
            step, scalars = self._numbers.popleft()
            failures = Failures()
            log_numbers(loggers, scalars, step, failures)
            self._session.reporter.report(failures, step)

    @cached_property
    def _session(self) -> Session:
        """The session. It is made late, because the process group may be newer than the watcher."""
        rank, processes = process_rank()
        if rank > 0:
            say_everywhere(
                f"process {rank} of {processes} records no snapshots; process 0 of the process "
                "group records those of all"
            )
        return Session(
            self._watched,
            self._probe,
            self._log_dir,
            style=self._style,
            state=self._restored,
            keep=rank == 0,
        )


class _TensorBoard:
    """A logger that makes its event file at the first picture.

    A failure then is survived and reported, while a failure in ``KernelWatcher()`` would end the
    training.
    """

    def __init__(self, log_dir: str) -> None:
        self._log_dir = log_dir

    @cached_property
    def experiment(self) -> SummaryWriter:
        self._process = os.getpid()
        return SummaryWriter(self._log_dir)

    def close(self) -> None:
        """Write out all events. In a forked child process nothing happens: its parent writes them.

        Raises:
            TimeoutError: If that takes more than 10 s.
            OSError: If the file cannot be written.
        """
        if "experiment" not in vars(self) or os.getpid() != self._process:
            return
        errors: list[BaseException] = []
        thread = JobQueue("kernelviz-events", most_jobs=1, most_bytes=0, on_error=errors.append)
        thread.submit(self.experiment.close)
        if not thread.close(patience=_CLOSE_PATIENCE):
            raise TimeoutError(f"it was not written within {_CLOSE_PATIENCE:.0f} s")
        if errors:
            raise errors[0]
