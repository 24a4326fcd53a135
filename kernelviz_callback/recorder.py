"""What a snapshot becomes: an exact file, two pictures a layer. No failure here ends a training."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from kernelviz_callback.filters import effective_weight, geometry_of
from kernelviz_callback.grid import Scale
from kernelviz_callback.loggers import EncodedImage, log_image
from kernelviz_callback.picture import Picture
from kernelviz_callback.probe import Probe
from kernelviz_callback.snapshot import (
    Snapshot,
    load_saved_probe,
    save_probe,
    save_snapshot,
    write_whole,
)
from kernelviz_callback.snapshot_pictures import Response, kernel_picture, response_picture

ScaleName: TypeAlias = Literal["filter", "layer", "run"]


class Recorder:
    """Takes snapshots of the same layers, with the same probe, into the same folder.

    Args:
        convolutions: Name to layer, all materialised.
        probe: The fixed image.
        folder: Where the snapshot files go; the pictures too if nobody else takes them.
        experiments: See `image_experiments`.
        response: See `response_picture`.
        scale: "run" holds one scale per picture: frozen at its first snapshot, only ever widened.
        run_scales: Tag of a picture to the scale frozen so far; updated in place.
    """

    def __init__(
        self,
        convolutions: Mapping[str, nn.Conv2d],
        probe: Probe,
        folder: Path,
        experiments: Sequence[Any],
        *,
        response: Response,
        scale: ScaleName,
        run_scales: dict[str, float],
    ) -> None:
        self.folder = folder
        self.taken = 0
        self._convolutions = convolutions
        self._probe = probe
        self._experiments = experiments
        self._response = response
        self._scale = scale
        self._run_scales = run_scales
        self._warned: set[str] = set()
        self._probe_is_logged = False

    def record(self, step: int, epoch: int) -> None:
        """Snapshot the layers as they are now. Failures warn, once a cause, and are survived."""
        with self._surviving("read the weights", "this and any later snapshot it concerns is lost"):
            snapshot = Snapshot(
                step=step,
                epoch=epoch,
                wall_time=time.time(),
                weights={name: effective_weight(c) for name, c in self._convolutions.items()},
                geometry={name: geometry_of(c) for name, c in self._convolutions.items()},
                probe_name=self._probe.name,
                probe_digest=self._probe.digest,
            )
            with self._surviving_disk():
                save_snapshot(snapshot, self.folder)
                self.taken += 1
            self._log_probe(step)
            # Everything is drawn before anything is logged: TensorBoard's writer computes checksums
            # in a thread of its own, which would take the processor from the drawing.
            for tag, image in self._draw(snapshot):
                self._publish(tag, image, step)

    def _draw(self, snapshot: Snapshot) -> list[tuple[str, EncodedImage]]:
        images: list[tuple[str, EncodedImage]] = []
        when = f"step {snapshot.step} · epoch {snapshot.epoch}"
        lost = "the pictures are lost, the snapshot files are kept"
        for layer, weights in snapshot.weights.items():
            tag = f"kernels/{layer}"
            with self._surviving(f"draw {tag}", lost):
                picture = kernel_picture(weights, layer=layer, when=when, scale=self._scale_of(tag))
                self._hold_scale(tag, picture)
                images.append((tag, EncodedImage.png(picture.pixels)))
            tag = f"responses/{layer}"
            with self._surviving(f"draw {tag}", lost):
                picture = response_picture(
                    weights,
                    snapshot.geometry[layer],
                    self._probe,
                    layer=layer,
                    when=when,
                    response=self._response,
                    scale=self._scale_of(tag),
                )
                self._hold_scale(tag, picture)
                images.append((tag, EncodedImage.jpeg(picture.pixels)))
        return images

    def _log_probe(self, step: int) -> None:
        if self._probe_is_logged:
            return
        self._probe_is_logged = True
        with self._surviving_disk():
            saved = load_saved_probe(self.folder)
            if saved is not None and saved.digest == self._probe.digest:
                return
            save_probe(self._probe, self.folder)
        with self._surviving("draw the probe", "training and snapshots go on"):
            image = EncodedImage.png(self._probe.to_picture())
            with self._surviving_disk():
                write_whole(self.folder / "probe.png", image.content)
            for experiment in self._experiments:
                with self._surviving_logger(experiment):
                    log_image(experiment, "probe", image, step)

    def _publish(self, tag: str, image: EncodedImage, step: int) -> None:
        if not self._experiments:
            name = re.sub(r"[^\w.-]", "-", f"{tag}-step-{step:08d}{image.suffix}")
            with self._surviving_disk():
                write_whole(self.folder / name, image.content)
        for experiment in self._experiments:
            with self._surviving_logger(experiment):
                log_image(experiment, tag, image, step)

    def _scale_of(self, tag: str) -> Scale:
        return self._run_scales.get(tag, 0.0) if self._scale == "run" else self._scale

    def _hold_scale(self, tag: str, picture: Picture) -> None:
        if self._scale == "run":
            self._run_scales[tag] = picture.half_ranges.max().item()

    @contextmanager
    def _surviving_disk(self) -> Iterator[None]:
        with self._surviving(
            f"write to {self.folder}", "snapshots are lost until it can be written again"
        ):
            yield

    @contextmanager
    def _surviving_logger(self, experiment: Any) -> Iterator[None]:
        name = type(experiment).__name__
        with self._surviving(f"log to {name}", "pictures are lost there, snapshot files are kept"):
            yield

    @contextmanager
    def _surviving(self, attempt: str, consequence: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if attempt not in self._warned:
                self._warned.add(attempt)
                warn(
                    f"could not {attempt}: {type(error).__name__}: {error}. "
                    f"Training goes on; {consequence}."
                )


def warn(message: str) -> None:
    """Warn on rank zero, and survive a process that turns warnings into errors."""
    try:
        rank_zero_warn(f"kernelviz: {message}")
    except Warning as warning:
        rank_zero_info(str(warning))
