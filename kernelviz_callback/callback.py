"""When to look: the Lightning callback. It decides and delegates; it computes nothing itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.optim import Optimizer
from typing_extensions import override

from kernelviz_callback.batch_probe import probe_of_batch, probe_of_loader
from kernelviz_callback.filters import find_convolutions, geometry_of, is_ready, weight_shape
from kernelviz_callback.loggers import image_experiments
from kernelviz_callback.probe import BATCH_SOURCES, Probe, ProbeSource, load_probe
from kernelviz_callback.recorder import Recorder, ScaleName, warn
from kernelviz_callback.schedule import Schedule
from kernelviz_callback.snapshot import run_folder, snapshot_name
from kernelviz_callback.snapshot_pictures import Response, check_fit

_NEVER = -1


class KernelVizCallback(Callback):
    """Watch filters form, die, duplicate or stay noise while a network trains.

    At the start of training (step 0, before the first update), at each epoch end and at the end of
    fit, the weights of the first convolution are written to ``<log_dir>/kernelviz/``, and two
    pictures go to TensorBoard's Images: ``kernels/<layer>``, the filters, and
    ``responses/<layer>``, what each filter makes of one fixed probe image. Without a logger that
    takes images they become files beside the snapshots. Training with the callback is bit-identical
    to training without it.

    Args:
        layers: None for the first 2-D convolution; a dotted name, a glob such as
            ``"backbone.*.conv1"``, or a list of both.
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
    ) -> None:
        _check_layers(layers)
        _check_choice("response", response, get_args(Response))
        _check_choice("scale", scale, get_args(ScaleName))
        if not isinstance(probe_size, int) or isinstance(probe_size, bool) or probe_size < 1:
            raise ValueError(f"probe_size must be a whole number of pixels; found {probe_size!r}")
        self.layers = layers
        self.response = response
        self.scale = scale
        self.schedule = Schedule(every_n_epochs, every_n_train_steps, early_steps)
        self._batch_source = probe if isinstance(probe, str) and probe in BATCH_SOURCES else None
        self._given = None if self._batch_source else load_probe(probe, size=probe_size)
        self._forget()

    def _forget(self) -> None:
        """Start a run of its own: nothing of an earlier one is left."""
        self._probe = self._given
        self._convolutions: dict[str, nn.Conv2d] = {}
        self._recorder: Recorder | None = None
        self._experiments: list[Any] = []
        self._folder: Path | None = None
        self._run_scales: dict[str, float] = {}
        self._restored: dict[str, Any] = {}
        self._is_fitting = False
        self._step = 0
        self._seen_step = _NEVER

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.global_step == 0:
            self._forget()

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._convolutions = find_convolutions(pl_module, self.layers)
        if self._probe is not None:
            self._check_fit(self._probe)

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
        if trainer.is_global_zero:
            try:
                self._experiments = image_experiments(trainer.loggers)
                self._open_folder(log_dir, continuing=self._step > 0 or bool(self._restored))
            except Exception as error:
                warn(f"could not prepare {log_dir}: {error!r}. Training goes on unwatched.")
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

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.schedule.due_after_epoch(trainer.current_epoch):
            self._snapshot(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish(trainer)

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._finish(trainer)

    @override
    def state_dict(self) -> dict[str, Any]:
        if self._probe is None or not all(map(is_ready, self._convolutions.values())):
            return self._restored
        return {
            "layers": {name: list(weight_shape(c)) for name, c in self._convolutions.items()},
            "probe_digest": self._probe.digest,
            "batch_probe": self._probe.image if self._batch_source else None,
            "batch_source": self._batch_source,
            "run_scales": dict(self._run_scales),
            "folder": str(self._folder) if self._folder else None,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict
        self._run_scales = dict(state_dict.get("run_scales", {}))
        folder = state_dict.get("folder")
        self._folder = Path(folder) if folder else None
        image = state_dict.get("batch_probe")
        taken_from = state_dict.get("batch_source")
        if image is not None and self._batch_source and self._batch_source == taken_from:
            self._probe = Probe(image, self._batch_source)

    def _take_probe(self, probe: Probe) -> None:
        self._check_fit(probe)
        self._probe = probe

    def _check_fit(self, probe: Probe) -> None:
        """Fail before the first update if the probe does not fit a layer whose shape is known."""
        for name, conv in self._convolutions.items():
            if is_ready(conv):
                try:
                    check_fit(weight_shape(conv), geometry_of(conv), probe)
                except ValueError as error:
                    raise ValueError(f"layer {name!r}: {error}") from None

    def _open_folder(self, log_dir: Path, *, continuing: bool) -> None:
        if not (continuing and self._folder and self._folder.parent == log_dir):
            self._folder = run_folder(log_dir, fresh=not continuing)
        if continuing and (self._folder / snapshot_name(self._step)).exists():
            self._seen_step = self._step

    def _snapshot(self, trainer: Trainer) -> None:
        if not self._is_fitting or trainer.global_step == self._seen_step:
            return
        if self._probe is None or not all(map(is_ready, self._convolutions.values())):
            return
        self._seen_step = trainer.global_step
        if not trainer.is_global_zero or self._folder is None:
            return
        if self._recorder is None:
            self._recorder = self._begin(self._probe, self._folder)
        self._recorder.record(trainer.global_step, trainer.current_epoch)

    def _begin(self, probe: Probe, folder: Path) -> Recorder:
        self._say_what_changed(probe)
        watched = ", ".join(
            f"{name} ({c.out_channels} filters {'x'.join(map(str, weight_shape(c)[1:]))})"
            for name, c in self._convolutions.items()
        )
        pictures = (
            "" if self._experiments else "; no logger takes images, so the pictures go there too"
        )
        rank_zero_info(f"kernelviz: watching {watched}; snapshots go to {folder}{pictures}")
        return Recorder(
            self._convolutions,
            probe,
            folder,
            self._experiments,
            response=self.response,
            scale=self.scale,
            run_scales=self._run_scales,
        )

    def _say_what_changed(self, probe: Probe) -> None:
        before = self._restored.get("layers")
        now = {name: list(weight_shape(c)) for name, c in self._convolutions.items()}
        if before is not None and before != now:
            warn(f"the watched layers changed since the checkpoint: they were {before}, are {now}")
        if self._restored.get("probe_digest", probe.digest) != probe.digest:
            warn(
                f"the probe changed since the checkpoint (it is now {probe.name}): responses "
                "before and after cannot be compared"
            )

    def _finish(self, trainer: Trainer) -> None:
        self._snapshot(trainer)
        if self._recorder is not None:
            taken, folder = self._recorder.taken, self._recorder.folder
            rank_zero_info(f"kernelviz: {taken} snapshots written to {folder}")
        self._recorder = None
        self._is_fitting = False


def _log_dir(trainer: Trainer) -> Path:
    """The first TensorBoard run, else Lightning's choice. A collective: call it on every rank."""
    chosen = trainer.log_dir or trainer.default_root_dir
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return Path(logger.log_dir)
    return Path(chosen)


def _check_layers(layers: object) -> None:
    names = [layers] if isinstance(layers, str) else layers
    if names is None:
        return
    if not isinstance(names, Sequence) or not all(isinstance(n, str) and n for n in names):
        raise TypeError(f"layers must be None, a name, or a list of names; found {layers!r}")
    if not names:
        raise ValueError("layers is an empty list; pass None for the first convolution")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; found {value!r}")
