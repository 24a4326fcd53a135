"""The Lightning callback. It determines when snapshots are taken; `Session` takes them."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from typing_extensions import override

from kernelviz_callback.drawing.layer_pictures import Response, map_shrink
from kernelviz_callback.model.convolutions import check_layers
from kernelviz_callback.probe.probe import BATCH_SOURCES, Probe, ProbeSource, check_probe_size
from kernelviz_callback.training.batch_probe import (
    load_given_probe,
    probe_of_batch,
    probe_of_loader,
)
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.health_logging import HealthLog
from kernelviz_callback.training.lightning_compat import (
    Callback,
    has_callback,
    is_fitting,
    log_dir_of,
)
from kernelviz_callback.training.renderer import ScaleName
from kernelviz_callback.training.run_state import RunState
from kernelviz_callback.training.schedule import Schedule
from kernelviz_callback.training.session import Session, Style
from kernelviz_callback.training.watched_layers import WatchedLayers

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_AVERAGING = ("WeightAveraging", "StochasticWeightAveraging")


class KernelVizCallback(Callback):
    """Show how the filters of a network's first convolution develop during training.

    Add it to a Trainer and start TensorBoard. The Kernels tab shows the filters of every snapshot.
    You see which filters form, which die, which become duplicates and which stay noise.

    **When:** a snapshot is taken at the start of training (step 0, before the first update), after
    the optimizer steps 1, 2, 4, 8, ... of the first epoch, at the end of each epoch, and at the
    end of fit. The arguments change this schedule.

    **What:** a snapshot holds the exact weights of the watched layers. It is written to a file in
    ``<log_dir>/kernelviz/``. All loggers that take images get pictures of it:

    - ``kernels/<layer>``: the filters;
    - ``responses/<layer>``: the response of each filter to the probe, a fixed image;
    - ``film/<layer>`` and ``evolution/<layer>``: pictures of the whole training. They are drawn
      after 4, 16, 64, ... epochs and at the end.

    Without a logger that takes images, the pictures are written to files beside the snapshots.
    All loggers get numbers of the health of the filters: ``kernelviz/<layer>/...``.

    **Cost:** training is bit-identical with and without the callback, except for what the model
    prints, logs, writes or changes in globals when it is run on the probe. Drawing and logging run
    in background threads. If a file or picture cannot be made, a warning says what is lost.

    A Trainer takes one callback of this class. To watch several layers, pass a list of them.

    Deeper layers (see ``layers``) are shown differently. Their filters have many input channels and
    are drawn as principal planes. Their responses are feature maps: the outputs of the layer when
    the probe is the input of the model, in evaluation mode.

    Args:
        layers: The layers to watch. None for the first 2-D convolution that the training runs and
            trains, or the first 1-D or 3-D one if there is no 2-D one. Otherwise a name or its end;
            a glob such as ``"backbone.*.conv1"``, ``"*"`` for all convolutions; or a list of them.
        probe: The image that the filters respond to. None for the built-in test chart. Otherwise
            the path of an image, a PIL image, a tensor or array of shape (C, H, W), or
            ``"train_batch"`` or ``"val_batch"`` for the first image of the first batch.
        probe_size: Size of the test chart in pixels. An image from a path or a PIL image is shrunk
            until its longer side has this size. Tensors and arrays are used as they are.
        response: "channels" to draw the response of each input channel: plane c of filter o is
            the probe's channel c convolved with ``weight[o, c]``. "sum" to draw the sum of these
            planes: the linear response of the filter.
        scale: What the two ends of the colour scale stand for: the largest magnitude of each
            "filter", of the whole "layer", or of the "run". The first snapshot sets the scale of
            the "run", and a later value that exceeds it widens it. A resumed training keeps it.
        every_n_epochs: Take a snapshot at the end of every n-th epoch; None for never.
        every_n_train_steps: Take a snapshot also after every n-th optimizer step; None for never.
        early_steps: Whether to take snapshots also after the optimizer steps 1, 2, 4, 8, ... of the
            first epoch. Filters change fastest then.
        health: Whether to examine the filters. Filters with a verdict, such as "near-zero", are
            framed in the pictures. Numbers are logged, and `EarlyStopping` and `ModelCheckpoint`
            can monitor them. A warning is given when filters of a layer have a new verdict at two
            snapshots in a row. The file of a snapshot holds the numbers of every filter.
        live: Whether to show the newest pictures also in the notebook cell that runs the training.

    Raises:
        ValueError: If an argument has a bad value. At the start of fit, if a layer cannot be found,
            or if the probe does not fit a layer.
        TypeError: If an argument has a wrong type.
        FileNotFoundError: If the path of the probe does not exist.
        RuntimeError: At the start of fit, if another Trainer trains with the same callback now.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> callback = KernelVizCallback()  # then: Trainer(callbacks=[callback]).fit(model)
    """

    def __init__(
        self,
        layers: str | list[str] | None = None,
        *,
        probe: ProbeSource = None,
        probe_size: int = 224,
        response: Response = "channels",
        scale: ScaleName = "filter",
        every_n_epochs: int | None = 1,
        every_n_train_steps: int | None = None,
        early_steps: bool = True,
        health: bool = True,
        live: bool = True,
    ) -> None:
        check_layers(layers)
        check_probe_size(probe_size)
        self.layers = layers
        self.style = Style(response, scale, health, live)
        self.schedule = Schedule(every_n_epochs, every_n_train_steps, early_steps)
        self._probe_size = probe_size
        self._batch_source = probe if isinstance(probe, str) and probe in BATCH_SOURCES else None
        self._given_probe = None if self._batch_source else load_given_probe(probe, probe_size)
        self._trainer: weakref.ref[Trainer] | None = None  # of the present or the last fit
        self._reset()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for copies and spawned processes, without threads and the model."""
        cleared = {
            "_trainer": None,
            "_watched": None,
            "_session": None,
            "_health_log": HealthLog(),
        }
        return {**vars(self), **cleared, "_restored": self._state(), "_is_fitting": False}

    @override
    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        if stage == "fit":
            self._set_up(trainer)

    @override
    def on_fit_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._find_layers(trainer, pl_module)

    @override
    def on_validation_batch_start(
        self,
        trainer: "Trainer",
        pl_module: "LightningModule",
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._take_validation_probe(trainer, batch)

    @override
    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._start(trainer)

    @override
    def on_train_batch_start(
        self, trainer: "Trainer", pl_module: "LightningModule", batch: Any, batch_idx: int
    ) -> None:
        if self._probe is None:
            self._take_training_probe(trainer, batch)

    @override
    def on_before_optimizer_step(
        self, trainer: "Trainer", pl_module: "LightningModule", optimizer: Optimizer
    ) -> None:
        # Lazy layers have no weights at the start, so their first snapshot is taken here.
        if self._session is not None and self._session.seen_step is None:
            self._session.stop_waiting()
            self._snapshot(trainer)

    @override
    def on_train_batch_end(
        self,
        trainer: "Trainer",
        pl_module: "LightningModule",
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._end_batch(trainer, log=pl_module.log)

    @override
    def on_train_epoch_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._end_epoch(trainer, log=pl_module.log)

    @override
    def on_train_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._finish(trainer, is_certain=True)

    @override
    def on_exception(
        self, trainer: "Trainer", pl_module: "LightningModule", exception: BaseException
    ) -> None:
        self._finish_after_exception(trainer)

    @override
    def teardown(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        self._tear_down(trainer, stage)

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._state().to_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restore(RunState.from_dict(state_dict))

    def _reset(self) -> None:
        """Drop everything that belongs to an earlier training."""
        self._probe = self._given_probe
        self._watched: WatchedLayers | None = None
        self._session: Session | None = None
        self._restored = RunState()
        self._log_dir = ""
        self._health_log = HealthLog()
        self._is_fitting = False
        self._step = 0

    def _set_up(self, trainer: "Trainer") -> None:
        other = self._trainer() if self._trainer is not None else None
        if other is not None and other is not trainer and is_fitting(other):
            raise RuntimeError(
                "this KernelVizCallback is in use: another Trainer fits with it right now; give "
                "each Trainer a KernelVizCallback of its own"
            )
        self._trainer = weakref.ref(trainer)
        self._close()  # a fit that failed may not have called `on_exception`
        if trainer.global_step == 0:
            self._reset()
        # Before a hook of the model can change the working directory.
        self._log_dir = log_dir_of(trainer)

    def _find_layers(self, trainer: "Trainer", module: "LightningModule") -> None:
        self._restored, self._session = self._state(), None
        self._watched = WatchedLayers(
            module,
            self.layers,
            trained=trainer.strategy.model,
            map_shrink=map_shrink,
            optimizers=trainer.optimizers,
            probe=self._probe,
            before=self._restored.layers,
        )
        if self._probe is None and not self._watched.reads_images:
            self._probe = load_given_probe(size=self._probe_size)  # a session needs any probe
        if self._probe is not None:
            self._probe = self._watched.check_fit(self._probe)

    def _take_validation_probe(self, trainer: "Trainer", batch: Any) -> None:
        if trainer.sanity_checking and self._batch_source == "val_batch" and self._probe is None:
            self._take_probe(partial(probe_of_batch, batch, "val_batch"))

    def _take_training_probe(self, trainer: "Trainer", batch: Any) -> None:
        if self._is_fitting:
            self._take_probe(partial(probe_of_batch, batch, "train_batch"))
            self._snapshot(trainer)

    def _take_probe(self, take: Callable[[int | None], Probe]) -> None:
        """Take the probe with a function of the number of channels that the model reads."""
        watched = self._watched
        self._probe = take(None) if watched is None else watched.check_fit(take(watched.channels))

    def _start(self, trainer: "Trainer") -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._is_fitting = True
        self._step = trainer.global_step
        if self._batch_source == "val_batch" and self._probe is None:
            self._take_probe(partial(probe_of_loader, trainer.val_dataloaders))
        self._snapshot(trainer)

    def _end_batch(self, trainer: "Trainer", *, log: Callable[..., None]) -> None:
        previous, self._step = self._step, trainer.global_step
        if self.schedule.due_after_steps(previous, self._step, trainer.current_epoch):
            self._snapshot(trainer)
        if self._health_log.is_waiting:  # rarely: most steps have no snapshot
            self._log_health(trainer, log=log)

    def _end_epoch(self, trainer: "Trainer", *, log: Callable[..., None]) -> None:
        if self.schedule.due_after_epoch(trainer.current_epoch):
            self._snapshot(trainer)
        elif (session := self._due_session(trainer)) and has_callback(trainer, *_AVERAGING):
            # This epoch may be the last one. At the end of training, averaged weights may have
            # replaced the trained weights, so the trained weights are copied now.
            session.hold(trainer.global_step, trainer.current_epoch)
        self._log_health(trainer, log=log, at_epoch_end=True)

    def _state(self) -> RunState:
        """Return the state for a checkpoint."""
        if self._session is None or self._probe is None:
            return self._restored
        image = self._probe.image if self._probe.name == self._batch_source else None
        return replace(self._session.state, batch_source=self._batch_source, batch_probe=image)

    def _restore(self, state: RunState) -> None:
        self._session = None  # the session may be that of another training
        self._restored = state
        if self._watched is not None:  # some strategies restore after `on_fit_start`
            self._watched.continue_with(state.layers)
        source = self._batch_source
        if state.batch_probe is not None and source and source == state.batch_source:
            self._probe = Probe(state.batch_probe, source)

    def _due_session(self, trainer: "Trainer") -> Session | None:
        """Return the session if this step is due, else None.

        All processes agree on whether the step is due.
        """
        if not self._is_fitting or self._probe is None:
            return None
        if self._session is None:
            assert self._watched is not None
            self._session = Session(
                self._watched,
                self._probe,
                self._log_dir,
                style=self.style,
                state=self._restored,
                keep=trainer.is_global_zero,
            )
        return self._session if self._session.is_due(trainer.global_step) else None

    def _snapshot(self, trainer: "Trainer") -> None:
        """Take a snapshot if this step is due."""
        session = self._due_session(trainer)
        if session is not None:
            step = trainer.global_step
            scalars = session.record(step, trainer.current_epoch, trainer.loggers)
            if self.style.health:
                self._health_log.expect(step, scalars)

    def _log_health(
        self,
        trainer: "Trainer",
        *,
        log: Callable[..., None] | None,
        at_epoch_end: bool = False,
    ) -> None:
        if self._is_fitting and self.style.health and self._session is not None:
            failures = Failures()
            losing = "pictures and snapshots are kept"
            with failures.survive("log health numbers with Lightning", losing):
                self._health_log.log(trainer, failures, log=log, at_epoch_end=at_epoch_end)
            self._session.reporter.report(failures, trainer.global_step)

    def _finish_after_exception(self, trainer: "Trainer") -> None:
        if trainer.state.fn == "fit" and self._fits(trainer):
            self._finish(trainer, is_certain=not self._may_misread_weights(trainer))

    def _finish(self, trainer: "Trainer", *, is_certain: bool) -> None:
        """Take a snapshot of the last step, then wait until everything is written.

        Args:
            trainer: The trainer.
            is_certain: Whether the trained weights can be read now. If not, the last snapshot is
                taken only if its weights were copied before.
        """
        if is_certain or (self._session is not None and self._session.holds(trainer.global_step)):
            self._snapshot(trainer)
        if self._session is not None:
            self._session.close()
        self._log_health(trainer, log=None)
        self._close()

    def _may_misread_weights(self, trainer: "Trainer") -> bool:
        """Whether it may be impossible to read the trained weights after an exception.

        Sharded weights cannot be gathered if the other processes do not take part. During
        validation, averaged weights may have replaced the trained ones.
        """
        is_sharded = self._watched is not None and self._watched.is_sharded
        return is_sharded or (not trainer.training and has_callback(trainer, "WeightAveraging"))

    def _fits(self, trainer: "Trainer") -> bool:
        """Whether a trainer is that of the present or the last fit. Another may only validate."""
        return self._trainer is not None and self._trainer() is trainer

    def _tear_down(self, trainer: "Trainer", stage: str) -> None:
        if not self._fits(trainer):
            return
        self._close()
        if stage == "fit":
            self._health_log.update_metrics(trainer)

    def _close(self) -> None:
        self._is_fitting = False
        if self._session is not None:
            self._session.close()
