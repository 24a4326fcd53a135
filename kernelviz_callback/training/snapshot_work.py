"""What is computed from a snapshot: its health, its pictures, and its events for the Kernels tab.

The work needs no logger and nothing of the training, so another process can do it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from kernelviz_callback.drawing.encode import EncodedImage
from kernelviz_callback.drawing.painted_grid import PaintedGrid
from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.event import pack_layer
from kernelviz_callback.snapshots.format import load_snapshot, save_snapshot
from kernelviz_callback.snapshots.names import snapshot_name
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder
from kernelviz_callback.tensorboard_plugin.codec import value_of
from kernelviz_callback.training.failures import Failures
from kernelviz_callback.training.films import Reel, draw_films
from kernelviz_callback.training.health_monitor import PREFIX, HealthMonitor
from kernelviz_callback.training.renderer import Renderer
from kernelviz_callback.training.snapshot_files import Recording

Scalars: TypeAlias = dict[str, float]

# Number of earlier snapshots that are read after a resume, besides the first one. They show which
# verdicts are not new, so that no alert is repeated.
_MOST_RECALLED = 3


@dataclass(frozen=True)
class Examined:
    """What the examination of a snapshot gives.

    Attributes:
        numbers: Health numbers, ``kernelviz/<layer>/<number>`` to the value. Empty if the filters
            are not examined.
        news: Warnings for the user.
        failures: What failed.
    """

    numbers: Scalars
    news: list[str]
    failures: Failures


@dataclass(frozen=True)
class Drawn:
    """What is shown of a snapshot.

    Attributes:
        images: Tag to image.
        events: Events for the Kernels tab, each a serialized ``Summary.Value``.
        run_scales: Kind of picture to the end of its colour scale, see `Renderer`.
        failures: What failed.
    """

    images: dict[str, EncodedImage]
    events: list[bytes]
    run_scales: dict[str, float]
    failures: Failures


class SnapshotWork:
    """Examines and draws the snapshots of one training, in the order of their steps.

    Args:
        probe: The fixed image.
        renderer: Draws the pictures.
        health: Whether the filters are examined.
    """

    def __init__(self, probe: Probe, renderer: Renderer, *, health: bool) -> None:
        self.renderer = renderer
        self._monitor = HealthMonitor(probe) if health else None
        self._reel = Reel()
        self._examined: Snapshot | None = None

    def examine(self, snapshot: Snapshot, folder: Folder) -> Examined:
        """Examine the next snapshot, and add its health to its file in the run folder."""
        failures = Failures()
        self._examined = snapshot
        with failures.survive("keep weights for the films", "the films read them from the files"):
            self._reel.add(snapshot)
        if self._monitor is None:
            return Examined({}, [], failures)
        consequence = "the health of these filters is unknown; snapshot files and pictures are kept"
        with failures.survive("examine the filters", consequence):
            self._examined = replace(snapshot, health=self._monitor.observe(snapshot, failures))
        consequence = "the file of this snapshot has the weights, but not the health"
        with failures.survive(f"write to {folder}", consequence):
            if self._examined.health and (folder / snapshot_name(snapshot.step)).exists():
                save_snapshot(self._examined, folder)
        numbers = {PREFIX + k: v for k, v in self._monitor.numbers(self._examined.health).items()}
        news, self._monitor.news = self._monitor.news, []
        return Examined(numbers, news, failures)

    def draw(self, recording: Recording, painted: Mapping[str, PaintedGrid] | None = None) -> Drawn:
        """Draw the snapshot that was examined last.

        Args:
            recording: The run folder and the attempt.
            painted: The result of `Renderer.paint`, if the convolutions are done already.

        Raises:
            RuntimeError: If no snapshot was examined since the last drawing.
        """
        snapshot, self._examined = self._examined, None
        if snapshot is None:
            raise RuntimeError("expected that a snapshot is examined before it is drawn")
        failures = Failures()
        if painted is None:
            images = self.renderer.draw(snapshot, failures)
        else:
            images = self.renderer.compose(snapshot, painted, failures)
        events: list[bytes] = []
        losing = "the Kernels tab does not show that layer; pictures and snapshot files are kept"
        for layer in snapshot.weights:
            with failures.survive(f"pack {layer}", losing):
                packed = pack_layer(snapshot, layer, recording.attempt, began_at=recording.began_at)
                events.append(value_of(*packed).SerializeToString())
        return Drawn(images, events, dict(self.renderer.run_scales), failures)

    def free_memory(self) -> None:
        """Keep no weights for films. Call it when another process has taken over the work."""
        self._reel.clear()

    def draw_films(self, folder: Folder) -> dict[str, EncodedImage]:
        """Draw the films of all snapshots in the run folder, see `draw_films`."""
        return draw_films(folder, self._reel)

    def recall(self, earlier: Sequence[Folder]) -> Failures:
        """Continue after snapshots that were recorded before.

        Args:
            earlier: The files of all these snapshots, in the order of their steps.

        Returns:
            What failed.
        """
        failures = Failures()
        if self._monitor is not None and earlier:
            consequence = "filters are compared with later snapshots only"
            with failures.survive("read earlier snapshots", consequence):
                paths = [earlier[0], *earlier[1:][-_MOST_RECALLED:]]
                self._monitor.recall(map(load_snapshot, paths), failures)
        return failures

    def summary(self) -> str:
        """Describe the last health of each layer in one line; empty if no layer was examined."""
        return "" if self._monitor is None else self._monitor.summary()
