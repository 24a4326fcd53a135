"""When to look: the Lightning callback. It decides and delegates; it computes nothing itself."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from typing_extensions import override

from kernelviz_callback.drawing.layer_pictures import Response
from kernelviz_callback.model.convolutions import check_layers
from kernelviz_callback.probe.probe import (
    BATCH_SOURCES,
    Probe,
    ProbeSource,
    check_probe_size,
    load_probe,
)
from kernelviz_callback.training.batch_probe import probe_of_batch, probe_of_loader
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.health_logging import HealthLog
from kernelviz_callback.training.lightning_compat import Callback
from kernelviz_callback.training.renderer import ScaleName
from kernelviz_callback.training.run_state import RunState
from kernelviz_callback.training.schedule import Schedule
from kernelviz_callback.training.session import Session, Style
from kernelviz_callback.training.watched_layers import WatchedLayers

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_AVERAGING = ("WeightAveraging", "StochasticWeightAveraging")


class KernelVizCallback(Callback):
    """Watch filters form, die, duplicate or stay noise while a network trains.

    At the start of training (step 0, before the first update), at each epoch end and at the end of
    fit, the weights of the first convolution are written to ``<log_dir>/kernelviz/`` and go to
    TensorBoard's Kernels tab, which has every step. Its Images get ``kernels/<layer>``, the
    filters, ``responses/<layer>``, what each makes of one fixed probe image, and now and then the
    whole training as ``film/<layer>`` and ``evolution/<layer>``. Without a logger that takes images
    they become files beside the snapshots. Training with it is bit-identical to training without.

    Of a deeper layer the filters are principal planes, and the responses its feature maps: what it
    gives out when the model reads the probe in evaluation mode, once a snapshot.

    Args:
        layers: None for the first 2-D convolution; a dotted name, a glob such as
            ``"backbone.*.conv1"`` or ``"*"`` for every 2-D convolution, or a list of both.
        probe: None for the built-in test chart; the path of an image, a PIL image, a tensor or
            array (C, H, W); or ``"train_batch"`` or ``"val_batch"``: the first image of the first
            batch.
        probe_size: Size in pixels of the chart; images are shrunk until their longer side has it.
        response: "channels": plane c of picture o is probe[c] * weight[o, c]; "sum": the layer's
            linear response, summed over its input channels.
        scale: What the ends of the colour scale stand for: the largest magnitude of each "filter",
            of the "layer", or of the "run": frozen at the first snapshot and only ever widened,
            also across a resume.
        every_n_epochs: Snapshot at the end of every n-th epoch; None for never.
        every_n_train_steps: Also after every n-th optimizer step; None for never.
        early_steps: Also after optimizer steps 1, 2, 4, 8, ... of the first epoch, while filters
            take shape.
        health: Examine the filters: flags on the kernel grid, numbers ``kernelviz/<layer>/...`` on
            every logger (and for ``EarlyStopping`` and ``ModelCheckpoint``), a warning when
            something begins to go wrong, the numbers of every filter in the snapshot's file.
        live: In a notebook, also show the newest pictures in the cell that trains.

    Raises:
        ValueError: At once for a bad value, at the start of fit for a layer that cannot be found or
            a probe that does not fit it.
        TypeError: For an argument of another type.
        FileNotFoundError: If the probe's path does not exist.

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
        self._batch_source = probe if isinstance(probe, str) and probe in BATCH_SOURCES else None
        self._given = None if self._batch_source else load_probe(probe, size=probe_size)
        self._forget()

    def _forget(self) -> None:
        """Start a run of its own: nothing of an earlier one is left."""
        self._probe = self._given
        self._watched: WatchedLayers | None = None
        self._session: Session | None = None
        self._restored = RunState()
        self._log_dir = ""
        self._health_log = HealthLog()
        self._is_fitting = False
        self._step = 0

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets, and a process that is spawned: no threads, and nobody else's model."""
        at_rest = {"_watched": None, "_session": None, "_health_log": HealthLog()}
        return {**vars(self), **at_rest, "_restored": self._state(), "_is_fitting": False}

    @override
    def setup(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        if stage == "fit" and trainer.global_step == 0:
            self._forget()

    @override
    def on_fit_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._restored, self._session = self._state(), None
        self._watched = WatchedLayers(pl_module, self.layers, trained=trainer.strategy.model)
        if self._probe is None and not self._watched.reads_images:
            self._probe = load_probe()  # no layer will look at it
        if self._probe is not None:
            self._watched.check_fit(self._probe)

    @override
    def on_validation_batch_start(
        self,
        trainer: "Trainer",
        pl_module: "LightningModule",
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking and self._batch_source == "val_batch" and self._probe is None:
            self._take_probe(probe_of_batch(batch, "val_batch"))

    @override
    def on_train_start(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        log_dir = _log_dir(trainer)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._is_fitting = True
        self._step = trainer.global_step
        if self._batch_source == "val_batch" and self._probe is None:
            self._take_probe(probe_of_loader(trainer.val_dataloaders))
        self._log_dir = log_dir
        self._snapshot(trainer)

    @override
    def on_train_batch_start(
        self, trainer: "Trainer", pl_module: "LightningModule", batch: Any, batch_idx: int
    ) -> None:
        if self._is_fitting and self._probe is None:
            self._take_probe(probe_of_batch(batch, "train_batch"))
            self._snapshot(trainer)

    @override
    def on_before_optimizer_step(
        self, trainer: "Trainer", pl_module: "LightningModule", optimizer: Optimizer
    ) -> None:
        if self._session is not None and self._session.seen_step is None:
            self._snapshot(trainer)  # a lazy layer has its weights only now

    @override
    def on_train_batch_end(
        self,
        trainer: "Trainer",
        pl_module: "LightningModule",
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        previous, self._step = self._step, trainer.global_step
        if self.schedule.due_after_steps(previous, self._step, trainer.current_epoch):
            self._snapshot(trainer)
        self._log_health(trainer, log=pl_module.log)

    @override
    def on_train_epoch_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        if self.schedule.due_after_epoch(trainer.current_epoch):
            self._snapshot(trainer)
        elif (session := self._due(trainer)) and _has(trainer, *_AVERAGING):
            # This may have been the last epoch of training: later averaged weights may stand in
            # place of these.
            session.hold(trainer.global_step, trainer.current_epoch)
        self._log_health(trainer, log=pl_module.log, at_epoch_end=True)

    @override
    def on_train_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        self._finish(trainer, is_exception=False)

    @override
    def on_exception(
        self, trainer: "Trainer", pl_module: "LightningModule", exception: BaseException
    ) -> None:
        if trainer.state.fn == "fit":
            self._finish(trainer, is_exception=True)

    @override
    def teardown(self, trainer: "Trainer", pl_module: "LightningModule", stage: str) -> None:
        self._close()
        if stage == "fit":
            self._health_log.leave(trainer)

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._state().to_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._session = None  # of another training, perhaps
        restored = self._restored = RunState.from_dict(state_dict)
        source = self._batch_source
        if restored.batch_probe is not None and source and source == restored.batch_source:
            self._probe = Probe(restored.batch_probe, source)

    def _state(self) -> RunState:
        if self._session is None or self._probe is None:
            return self._restored
        image = self._probe.image if self._probe.name == self._batch_source else None
        return replace(self._session.state, batch_source=self._batch_source, batch_probe=image)

    def _take_probe(self, probe: Probe) -> None:
        if self._watched is not None:
            self._watched.check_fit(probe)
        self._probe = probe

    def _due(self, trainer: "Trainer") -> Session | None:
        """Who observes, if this step can be taken and has not been. The same on every process."""
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
        session = self._due(trainer)
        if session is not None:
            step = trainer.global_step
            scalars = session.record(step, trainer.current_epoch, trainer.loggers)
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
            with failures.survive("give numbers to Lightning", "pictures and snapshots are kept"):
                self._health_log.log(trainer, failures, log=log, at_epoch_end=at_epoch_end)
            self._session.reporter.report(failures, trainer.global_step)

    def _finish(self, trainer: "Trainer", *, is_exception: bool) -> None:
        """Take the last state if it has not been taken, then let everything be written."""
        is_held = self._session is not None and self._session.holds(trainer.global_step)
        if is_held or not (is_exception and self._is_uncertain(trainer)):
            self._snapshot(trainer)
        self._log_health(trainer, log=None)
        self._close()

    def _is_uncertain(self, trainer: "Trainer") -> bool:
        """Whether an exception leaves no way to read the weights of the training.

        The other processes may not come to a gathering, and during validation averaged weights may
        stand in place of those that are trained.
        """
        is_sharded = self._watched is not None and self._watched.is_sharded
        return is_sharded or (not trainer.training and _has(trainer, "WeightAveraging"))

    def _close(self) -> None:
        self._is_fitting = False
        if self._session is not None:
            self._session.close()


def _log_dir(trainer: "Trainer") -> str:
    """The first TensorBoard run, else Lightning's choice. A collective: call it on every rank."""
    chosen = trainer.log_dir or trainer.default_root_dir
    boards = [x for x in trainer.loggers if "TensorBoardLogger" in _names(x) and x.log_dir]
    return str(boards[0].log_dir if boards else chosen)


def _has(trainer: "Trainer", *names: str) -> bool:
    """Tell whether one of these callbacks of Lightning's, not all of every version, is there."""
    found = trainer.callbacks  # type: ignore[attr-defined]
    return any(not _names(callback).isdisjoint(names) for callback in found)


def _names(thing: object) -> set[str]:
    """Of its classes: Lightning has two of each, in packages of different names."""
    return {kind.__name__ for kind in type(thing).__mro__}
