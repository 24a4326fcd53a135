"""When to look: the Lightning callback. It decides and delegates; it computes nothing itself."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, get_args

from lightning.pytorch import Callback, LightningModule, Trainer, callbacks
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch.optim import Optimizer
from typing_extensions import override

from kernelviz_callback.batch_probe import probe_of_batch, probe_of_loader
from kernelviz_callback.claim import LastClaim
from kernelviz_callback.filters import check_layers
from kernelviz_callback.health_log import HealthLog
from kernelviz_callback.illustrator import Illustrator, ScaleName
from kernelviz_callback.loggers import image_experiments
from kernelviz_callback.mishaps import Mishaps, Reporter, warn
from kernelviz_callback.probe import BATCH_SOURCES, Probe, ProbeSource, load_probe
from kernelviz_callback.publisher import Publisher
from kernelviz_callback.recorder import Recorder, Scalars
from kernelviz_callback.resume import RunState
from kernelviz_callback.schedule import Schedule
from kernelviz_callback.snapshot import Snapshot
from kernelviz_callback.snapshot_pictures import Response
from kernelviz_callback.watch import Watch

_NEVER = -1
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
    ) -> None:
        check_layers(layers)
        _check_choice("response", response, get_args(Response))
        _check_choice("scale", scale, get_args(ScaleName))
        if not isinstance(probe_size, int) or isinstance(probe_size, bool) or probe_size < 1:
            raise ValueError(f"probe_size must be a whole number of pixels; found {probe_size!r}")
        self.layers = layers
        self.response = response
        self.scale = scale
        self.health = health
        self.schedule = Schedule(every_n_epochs, every_n_train_steps, early_steps)
        self._batch_source = probe if isinstance(probe, str) and probe in BATCH_SOURCES else None
        self._given = None if self._batch_source else load_probe(probe, size=probe_size)
        self._forget()

    def _forget(self) -> None:
        """Start a run of its own: nothing of an earlier one is left."""
        self._probe = self._given
        self._watch: Watch | None = None
        self._restored = RunState()
        self._run_scales: dict[str, float] = {}
        self._last_claim = LastClaim()
        self._log_dir = ""
        self._recorder: Recorder | None = None
        self._reporter = Reporter()
        self._health_log = HealthLog()
        self._is_fitting = False
        self._step = 0
        self._seen_step = _NEVER
        self._held: tuple[Snapshot | None, Mishaps] | None = None
        self._held_step = _NEVER

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets, and a process that is spawned: no threads, and nobody else's model."""
        at_rest = {"_watch": None, "_recorder": None, "_health_log": HealthLog(), "_held": None}
        return {**vars(self), **at_rest, "_restored": self._state(), "_is_fitting": False}

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.global_step == 0:
            self._forget()

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch = Watch(pl_module, self.layers, trained=trainer.strategy.model)
        if self._probe is not None:
            self._watch.check_fit(self._probe)

    @override
    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking and self._batch_source == "val_batch" and self._probe is None:
            self._take_probe(probe_of_batch(batch, "val_batch"))

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._is_fitting and self._probe is None:
            self._take_probe(probe_of_batch(batch, "train_batch"))
            self._snapshot(trainer)

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        if self._seen_step == _NEVER:  # a lazy layer has its weights only now
            self._snapshot(trainer)

    @override
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        previous, self._step = self._step, trainer.global_step
        if self.schedule.due_after_steps(previous, self._step, trainer.current_epoch):
            self._snapshot(trainer)
        self._log_health(trainer, log=pl_module.log)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.schedule.due_after_epoch(trainer.current_epoch):
            self._snapshot(trainer)
        elif self._is_due(trainer) and _has(trainer, *_AVERAGING):
            # This may have been the last epoch of training: later averaged weights may stand in
            # place of these.
            self._hold(trainer)
        self._log_health(trainer, log=pl_module.log, at_epoch_end=True)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer, is_exception=False)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._finish(trainer, is_exception=True)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()
        if stage == "fit":
            self._health_log.leave(trainer)

    @override
    def state_dict(self) -> dict[str, Any]:
        if self._recorder is not None and self.scale == "run":
            self._recorder.drain()
        return self._state().to_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        restored = self._restored = RunState.from_dict(state_dict)
        self._run_scales = dict(restored.run_scales)
        self._last_claim = restored.last_claim
        source = self._batch_source
        if restored.batch_probe is not None and source and source == restored.batch_source:
            self._probe = Probe(restored.batch_probe, source)

    def _state(self) -> RunState:
        if self._watch is None or self._probe is None or not self._watch.is_ready:
            return self._restored
        return RunState(
            layers=self._watch.shapes,
            probe_digest=self._probe.digest,
            batch_source=self._batch_source,
            batch_probe=self._probe.image if self._batch_source else None,
            run_scales=dict(self._run_scales),
            **(self._recorder.last_claim if self._recorder else self._last_claim)._asdict(),
        )

    def _take_probe(self, probe: Probe) -> None:
        if self._watch is not None:
            self._watch.check_fit(probe)
        self._probe = probe

    def _snapshot(self, trainer: Trainer) -> None:
        if self._is_due(trainer):
            if self._recorder is not None:
                self._recorder.wait_for_turn()
            self._record(trainer, *self._hold(trainer))

    def _hold(self, trainer: Trainer) -> tuple[Snapshot | None, Mishaps]:
        """Take the weights of this step, once: the first look is at those that were trained."""
        if self._held is None or self._held_step != trainer.global_step:
            mishaps = Mishaps()
            self._held = self._take(trainer, mishaps), mishaps
            self._held_step = trainer.global_step
        return self._held

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether this step can be taken and has not been. The same on every process."""
        return (
            self._is_fitting
            and trainer.global_step != self._seen_step
            and self._probe is not None
            and self._watch is not None
            and self._watch.is_ready
        )

    def _take(self, trainer: Trainer, mishaps: Mishaps) -> Snapshot | None:
        """Copy the weights; None on other processes than rank zero, and if it fails."""
        assert self._watch is not None
        assert self._probe is not None
        with mishaps.survive("read the weights", "this and any later snapshot it concerns is lost"):
            return self._watch.take(
                step=trainer.global_step,
                epoch=trainer.current_epoch,
                probe=self._probe,
                keep=trainer.is_global_zero,
                alone=trainer.interrupted and trainer.world_size > 1,
            )
        return None

    def _record(self, trainer: Trainer, snapshot: Snapshot | None, mishaps: Mishaps) -> None:
        scalars = None
        if trainer.is_global_zero:
            scalars = self._hand_over(trainer, snapshot, mishaps)
        self._health_log.expect(trainer.global_step, scalars)
        self._seen_step = trainer.global_step
        self._held = None

    def _hand_over(
        self, trainer: Trainer, snapshot: Snapshot | None, mishaps: Mishaps
    ) -> "Future[Scalars] | None":
        if snapshot is not None:
            experiments = self._experiments(trainer, mishaps)
            with mishaps.survive("record a snapshot", "it is lost; what was written is kept"):
                if self._recorder is None:
                    self._recorder = self._begin(snapshot)
                return self._recorder.record(snapshot, experiments, mishaps)
        self._reporter.report(mishaps, trainer.global_step)
        return None

    def _log_health(
        self,
        trainer: Trainer,
        *,
        log: Callable[..., None] | None,
        at_epoch_end: bool = False,
    ) -> None:
        if self._is_fitting and self.health:
            mishaps = Mishaps()
            with mishaps.survive("give numbers to Lightning", "pictures and snapshots are kept"):
                self._health_log.log(trainer, mishaps, log=log, at_epoch_end=at_epoch_end)
            self._reporter.report(mishaps, trainer.global_step)

    def _experiments(self, trainer: Trainer, mishaps: Mishaps) -> list[Any]:
        found: list[Any] = []
        for logger in trainer.loggers:
            name = type(logger).__name__
            with mishaps.survive(f"reach {name}", "its pictures are lost; snapshot files are kept"):
                found += image_experiments([logger])
        return found

    def _begin(self, first: Snapshot) -> Recorder:
        assert self._watch is not None
        assert self._probe is not None
        for change in self._restored.changes(self._watch.shapes, self._probe):
            warn(change)
        illustrator = Illustrator(
            self._probe, response=self.response, scale=self.scale, run_scales=self._run_scales
        )
        return Recorder(
            self._log_dir,
            self._last_claim,
            self._probe,
            device=next(iter(first.weights.values())).device,
            publisher=Publisher(self._probe, illustrator),
            reporter=self._reporter,
            health=self.health,
            about=str(self._watch),
        )

    def _finish(self, trainer: Trainer, *, is_exception: bool) -> None:
        """Take the last state if it has not been taken, then let everything be written."""
        is_held = self._held is not None and self._held_step == trainer.global_step
        if is_held or not (is_exception and self._is_uncertain(trainer)):
            self._snapshot(trainer)
        self._log_health(trainer, log=None)
        self._close()

    def _is_uncertain(self, trainer: Trainer) -> bool:
        """Whether an exception leaves no way to read the weights of the training.

        The other processes may not come to a gathering, and during validation averaged weights may
        stand in place of those that are trained.
        """
        is_sharded = self._watch is not None and self._watch.is_sharded
        return is_sharded or (not trainer.training and _has(trainer, "WeightAveraging"))

    def _close(self) -> None:
        self._is_fitting = False
        self._held = None
        if self._recorder is not None:
            mishaps = Mishaps()
            with mishaps.survive("finish", "the last snapshots may be lost; earlier ones are kept"):
                said = self._recorder.close()
                rank_zero_info(f"kernelviz: {said}")
            self._reporter.report(mishaps, self._step)
            self._last_claim = self._recorder.last_claim
            self._recorder = None


def _log_dir(trainer: Trainer) -> str:
    """The first TensorBoard run, else Lightning's choice. A collective: call it on every rank."""
    chosen = trainer.log_dir or trainer.default_root_dir
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return str(logger.log_dir)
    return str(chosen)


def _has(trainer: Trainer, *names: str) -> bool:
    """Tell whether one of these callbacks of Lightning's, not all of every version, is there."""
    kinds = tuple(getattr(callbacks, name) for name in names if hasattr(callbacks, name))
    return any(isinstance(c, kinds) for c in trainer.callbacks)  # type: ignore[attr-defined]


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; found {value!r}")
