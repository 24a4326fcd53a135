"""Take and record the snapshots of one training.

The Lightning callback and `KernelWatcher` both use this module. It does not depend on Lightning.
"""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, get_args

from kernelviz_callback.console import warn
from kernelviz_callback.drawing.layer_pictures import Response
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.training.cuda_capture import is_capturing
from kernelviz_callback.training.failures import FailureReporter, Failures
from kernelviz_callback.training.loggers.base import Destination
from kernelviz_callback.training.loggers.notebook import NotebookView, is_in_notebook
from kernelviz_callback.training.loggers.registry import destination_of
from kernelviz_callback.training.recorder import Recorder
from kernelviz_callback.training.renderer import Renderer, ScaleName
from kernelviz_callback.training.run_state import RunState
from kernelviz_callback.training.snapshot_work import Scalars
from kernelviz_callback.training.watched_layers import WatchedLayers


@dataclass(frozen=True)
class Style:
    """How snapshots are shown. The options are explained at `KernelVizCallback`.

    Attributes:
        response: "channels" or "sum".
        scale: "filter", "layer" or "run".
        health: Whether filters are examined.
        live: Whether the newest pictures are shown in a notebook.

    Raises:
        ValueError: If ``response`` or ``scale`` is not one of the choices.
    """

    response: Response = "channels"
    scale: ScaleName = "filter"
    health: bool = True
    live: bool = True

    def __post_init__(self) -> None:
        """Check the choices."""
        _check_choice("response", self.response, get_args(Response))
        _check_choice("scale", self.scale, get_args(ScaleName))


@dataclass(frozen=True)
class _Held:
    """A snapshot that is not recorded yet.

    Attributes:
        step: Step of the snapshot.
        snapshot: The snapshot. None if the weights could not be read, or if this process does not
            record.
        failures: The failures of the snapshot so far.
    """

    step: int
    snapshot: Snapshot | None
    failures: Failures


class Session:
    """Takes and records the snapshots of one training.

    Args:
        watched: The layers.
        probe: The fixed image.
        log_dir: Parent of the run folder, see `lock_run_folder`.
        style: How snapshots are shown.
        state: State of a resumed training; ``RunState()`` for a new training.
        keep: Whether this process records snapshots. The other processes only take part when
            weights are gathered.

    Attributes:
        seen_step: Step of the last call of `record`; None before the first call.
        reporter: Reports failures to the user.
    """

    def __init__(
        self,
        watched: WatchedLayers,
        probe: Probe,
        log_dir: str,
        *,
        style: Style,
        state: RunState,
        keep: bool = True,
    ) -> None:
        self.seen_step: int | None = None
        self._has_waited = False  # for layers without weights
        self.reporter = FailureReporter()
        self._watched = watched
        self._probe = probe
        self._log_dir = log_dir
        self._style = style
        self._state = state
        self._keep = keep
        self._attempt = state.attempt
        self._run_scales = dict(state.run_scales)
        self._recorder: Recorder | None = None
        self._held: _Held | None = None
        self._view: NotebookView | None = None

    @property
    def state(self) -> RunState:
        """The state that a resumed training needs.

        If the scale is "run", this waits for all pictures, because they can widen the scale.
        """
        if not self._watched.is_ready:
            return self._state
        if self._recorder is not None:
            if self._style.scale == "run":
                self.drain()
            self._attempt = self._recorder.attempt
        return RunState(
            layers=self._watched.shapes,
            probe_digest=self._probe.digest,
            run_scales=dict(self._run_scales),
            attempt=self._attempt,
        )

    def stop_waiting(self) -> None:
        """See `WatchedLayers.stop_waiting`."""
        self._watched.stop_waiting()

    def is_due(self, step: int) -> bool:
        """Whether a step can be recorded and is not recorded yet. The same on all processes."""
        is_ready = self._watched.is_ready
        self._has_waited = self._has_waited or not is_ready
        return step != self.seen_step and is_ready

    def holds(self, step: int) -> bool:
        """Whether `hold` has copied the weights of a step that is not recorded yet."""
        return self._held is not None and self._held.step == step

    def hold(self, step: int, epoch: int) -> None:
        """Copy the weights of a step now, so that `record` can use the copy later.

        Call this if the model may have other weights, such as averaged ones, when `record` is
        called. A second call with the same step does nothing.

        Args:
            step: ``trainer.global_step``.
            epoch: ``trainer.current_epoch``.
        """
        if not self.holds(step):
            self._held = self._take(step, epoch)

    def record(self, step: int, epoch: int, loggers: Iterable[Any]) -> "Future[Scalars] | None":
        """Copy the weights of a step, unless `hold` did so, and record them in the background.

        Args:
            step: ``trainer.global_step``.
            epoch: ``trainer.current_epoch``.
            loggers: Loggers of any kind. Those that take images get the pictures.

        Returns:
            A future for the health numbers. None if nothing is recorded.
        """
        if self._recorder is not None:
            self._recorder.wait_for_turn()
        held = self._held
        if held is None or held.step != step:
            held = self._take(step, epoch)
        snapshot, failures = held.snapshot, held.failures
        self.seen_step, self._held = step, None
        if not self._keep:
            return None
        if snapshot is not None:
            destinations = _destinations(loggers, failures) + self._notebook(failures)
            losing = "that snapshot is lost; what was written is kept"
            with failures.survive("record a snapshot", losing):
                if self._recorder is None:
                    self._recorder = self._start_recorder(snapshot)
                return self._recorder.record(snapshot, destinations, failures)
        self.reporter.report(failures, step)
        return None

    def drain(self) -> None:
        """Wait until all snapshots so far are written and published."""
        if self._recorder is not None:
            self._recorder.drain()

    def close(self) -> None:
        """Finish all snapshots and log the closing line. A second call does nothing."""
        self._held = None
        failures = Failures()
        if self._has_waited and self.seen_step is None:
            reason = "a lazy convolution got no input, so it has no weights"
            failures.note("take a snapshot", reason, "nothing was recorded")
        self.reporter.report(failures, 0)
        if self._recorder is not None:
            failures = Failures()
            with failures.survive(
                "finish the recording", "the last snapshots may be lost; earlier ones are kept"
            ):
                self._recorder.close()
            self.reporter.report(failures, self.seen_step or 0)
            self._attempt = self._recorder.attempt
            self._recorder = None

    def _take(self, step: int, epoch: int) -> _Held:
        failures, snapshot = Failures(), None
        losing = "snapshots are lost until the weights can be read; earlier ones are kept"
        with failures.survive("read the weights", losing):
            if is_capturing():
                raise RuntimeError(
                    "a CUDA graph is being captured, and a copy of the weights would become a part "
                    "of it; take snapshots outside of torch.cuda.graph"
                )
            snapshot = self._watched.take(
                step=step, epoch=epoch, probe=self._probe, keep=self._keep, failures=failures
            )
        _note_stored_only(snapshot, failures)
        return _Held(step, snapshot, failures)

    def _notebook(self, failures: Failures) -> list[Destination]:
        """Return the notebook cell in which the training runs, or nothing outside notebooks."""
        if self._view is None and self._style.live and is_in_notebook():
            with failures.survive("show pictures in the notebook", "they are logged and kept"):
                self._view = NotebookView()
        return [self._view] if self._view is not None else []

    def _start_recorder(self, first: Snapshot) -> Recorder:
        for change in self._state.changes(self._watched.shapes, self._probe):
            warn(change)
        renderer = Renderer(
            self._probe,
            response=self._style.response,
            scale=self._style.scale,
            run_scales=self._run_scales,
        )
        return Recorder(
            self._log_dir,
            self._probe,
            last=self._attempt,
            device=next(iter(first.weights.values())).device,
            renderer=renderer,
            reporter=self.reporter,
            health=self._style.health,
            about=str(self._watched),
        )


def _note_stored_only(snapshot: Snapshot | None, failures: Failures) -> None:
    """Note the layers whose weights are not known to be those that they multiply with."""
    for name, reason in snapshot.stored_only.items() if snapshot is not None else ():
        failures.note(
            f"measure the weights that {name} multiplies with",
            reason,
            "the weights that the layer stores are shown",
        )


def _destinations(loggers: Iterable[Any], failures: Failures) -> list[Destination]:
    found: list[Destination | None] = []
    for logger in loggers:
        name = type(logger).__name__
        losing = "pictures for that logger are lost; snapshot files are kept"
        with failures.survive(f"reach {name}", losing):
            found.append(destination_of(logger))
    return [destination for destination in found if destination is not None]


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; found {value!r}")
