"""A tiny network, its data, and one way to train it: every test of the callback starts here."""

import io
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_page import Engine, chromium, engine_page
from forked import close_servers
from hypothesis import settings
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tab_boards import Board
from tab_page import Site, Tab, opening, prepared_board
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from kernelviz_callback import KernelVizCallback, list_snapshots
from kernelviz_callback.checkpoints.checkpoint import Checkpoint, open_checkpoint
from kernelviz_callback.training.loggers.registry import own_destinations

BATCHES = 4
STEPS = 2 * BATCHES  # of the default two epochs
DEFAULT_STEPS = [0, 1, 2, 4, 8]  # start, early steps, epoch ends at 4 and 8

# The workers share two cores: more threads than one each would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
    torch.set_num_threads(1)

# Hypothesis fails a slow example. On a busy machine every example may be slow.
settings.register_profile("no time limit", deadline=None)
settings.load_profile("no time limit")

# An event file's name ends with the second and a number that is counted up. TensorBoard reads files
# in the order of their names, and "10" is before "9": two short trainings in one second may change
# places. Numbers of the same length keep their order.
event_file_writer._global_uid = event_file_writer.AtomicCounter(100_000)


# The files that take longest begin first, so that no worker is left alone with one at the end.
LONGEST_FIRST = (
    "test_bit_identity.py",
    "test_examples.py",
    "test_processes.py",
    "test_growth.py",
    "test_page_tiles.py",
    "test_tab_dimensions.py",
    "test_architectures.py",
    "test_notebook.py",
    "test_killed.py",
    "test_drawing_process.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_sessionfinish() -> None:
    close_servers()


class TinyNet(LightningModule):
    """Dropout, BatchNorm and a shuffled loader: the callback could disturb each of them."""

    def __init__(self, conv: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 8, 5)
        self.rest = nn.Sequential(
            nn.LazyBatchNorm2d() if conv is not None else nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.LazyLinear(4) if conv is not None else nn.Linear(32, 4),
        )
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.conv(x))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def _loader(self, shuffle: bool) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(5)
        images = torch.rand(BATCHES * 8, 3, 16, 16, generator=generator)
        labels = torch.randint(4, (BATCHES * 8,), generator=generator)
        return DataLoader(TensorDataset(images, labels), batch_size=8, shuffle=shuffle)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(shuffle=False)

    test_dataloader = predict_dataloader = val_dataloader


class LoggingNet(TinyNet):
    """Logs a scalar at every step, through the same writer as the pictures."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss


class TwoOptimizers(TinyNet):
    """Manual optimization; ``global_step`` counts the steps of both."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        sgd = torch.optim.SGD
        return sgd(self.conv.parameters(), lr=0.1), sgd(self.rest.parameters(), lr=0.1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()
        return loss


class Witness(Callback):
    """Clones the weights at every hook: an independent record to hold the snapshots against."""

    def __init__(self) -> None:
        self.weights: dict[int, Tensor] = {}

    def _look(self, trainer: Trainer, module: LightningModule) -> None:
        self.weights[trainer.global_step] = module.conv.weight.detach().clone()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._look(trainer, pl_module)


@pytest.fixture(autouse=True)
def _nothing_is_lost(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Any:
    """Fail a test in which the callback survived a failure that the test did not provoke."""
    with caplog.at_level("INFO"):
        yield
    if not request.node.get_closest_marker("loses_something"):
        lost = [r.getMessage() for r in caplog.get_records("call") if "could not" in r.getMessage()]
        assert not lost


@pytest.fixture
def own_loggers() -> Iterator[None]:
    """Give a test an empty registry of loggers, and restore the registry after the test."""
    before = dict(own_destinations)
    own_destinations.clear()
    yield
    own_destinations.clear()
    own_destinations.update(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; tests are skipped where there is none."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def engine(browser: Any) -> Iterator[Engine]:
    """Runs scripts with the modules of the Kernels tab."""
    with engine_page(browser) as page:
        yield page


@pytest.fixture(scope="session")
def shared_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A TensorBoard that shows the prepared runs; tests read it and write nothing."""
    with prepared_board(tmp_path_factory.mktemp("site")) as board:
        yield board


@pytest.fixture(scope="module")
def site(browser: Any, shared_board: Board) -> Site:
    """The TensorBoard of the prepared runs, and a browser."""
    return Site(shared_board, browser)


@pytest.fixture
def opened(site: Site) -> Iterator[Callable[..., Tab]]:
    """Opens tabs of the site; nothing may be complained of in them."""
    with opening(site) as look:
        yield look


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch use two threads, also in a worker of pytest-xdist, so that a change shows."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def closing_line() -> Any:
    """Read the last line of the callback from Lightning's log, as a user does."""
    lines: list[str] = []

    class Listen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("kernelviz:"):
                lines.append(record.getMessage())

    log, handler = logging.getLogger("kernelviz_callback"), Listen()
    log.addHandler(handler)
    yield lambda: lines[-1]
    log.removeHandler(handler)


@pytest.fixture
def trainer_for(tmp_path: Path) -> Callable[..., Trainer]:
    """Build a quiet Trainer on the CPU that logs to TensorBoard below ``tmp_path``."""

    def build(*callbacks: Callback, **options: Any) -> Trainer:
        defaults: dict[str, Any] = {
            "accelerator": "cpu",
            "default_root_dir": tmp_path,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "max_epochs": 2,
        }
        if "logger" not in options:
            options["logger"] = TensorBoardLogger(tmp_path, name="run")
        return Trainer(**{**defaults, **options}, callbacks=list(callbacks))

    return build


@pytest.fixture
def fit(trainer_for: Callable[..., Trainer]) -> Callable[..., Trainer]:
    """Train a model, `TinyNet` unless another is given, and return the Trainer."""

    def run(
        *callbacks: Callback,
        model: LightningModule | None = None,
        ckpt_path: Path | None = None,
        **options: Any,
    ) -> Trainer:
        trainer = trainer_for(*callbacks, **options)
        seed_everything(3, verbose=False)
        trainer.fit(model or TinyNet(), ckpt_path=ckpt_path)
        return trainer

    return run


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of a few MiB. ext4 keeps a part of what it cannot allocate, tmpfs does not."""
    disk, image = tmp_path / "disk", tmp_path / "image"
    disk.mkdir()
    commands = [["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]]
    if request.param == "ext4":
        image.write_bytes(bytes(2**23))
        commands = [
            ["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)],
            ["mount", "-o", "loop", str(image), str(disk)],
        ]
    for command in commands:
        is_known = sys.platform == "linux" and shutil.which(command[0]) is not None
        if not is_known or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"no small {request.param} can be made here: that needs root, and Linux")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk to the last byte, as another process does."""
    path = disk / "of another process"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass
    return path


def logged_images(log_dir: str | Path) -> dict[str, dict[int, np.ndarray]]:
    """Read every image of an event file back: tag to step to (H, W, 3) pixels.

    Fails if a tag has the same step twice.
    """
    events = EventAccumulator(str(log_dir), size_guidance={"images": 0})
    events.Reload()
    images: dict[str, dict[int, np.ndarray]] = {}
    for tag in events.Tags()["images"]:
        logged = events.Images(tag)
        steps = [image.step for image in logged]
        assert len(set(steps)) == len(steps), f"{tag} was logged twice at a step: {steps}"
        images[tag] = {
            i.step: np.asarray(Image.open(io.BytesIO(i.encoded_image_string))) for i in logged
        }
    return images


def warned(caught: pytest.WarningsRecorder) -> list[str]:
    return [str(w.message) for w in caught if "kernelviz:" in str(w.message)]


def wait_until_recorded(trainer: Any) -> None:
    """Wait until the snapshots so far are written and published.

    `KernelVizCallback.state_dict` waits for that if ``scale="run"``.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, KernelVizCallback):
            assert callback.style.scale == "run"
            callback.state_dict()


def steps_on_disk(log_dir: str | Path) -> list[int]:
    return list(list_snapshots(Path(log_dir) / "kernelviz"))


def assert_seen(trainer: Any, steps: list[int], layer: str = "conv") -> None:
    """The same steps on disk and under both tags, none twice."""
    assert steps_on_disk(trainer.log_dir) == steps
    images = logged_images(trainer.log_dir)
    assert list(images[f"kernels/{layer}"]) == steps
    assert list(images[f"responses/{layer}"]) == steps


@pytest.fixture
def gabor() -> Tensor:
    """A weight of 4 filters 3x5x5 with both signs: two orientations, a blob, and zeros."""
    y, x = torch.meshgrid(torch.arange(5.0) - 2, torch.arange(5.0) - 2, indexing="ij")
    window = torch.exp(-(x**2 + y**2) / 4)
    planes = torch.stack([window * torch.sin(x), window * torch.cos(2 * y), window, window * 0])
    return planes[:, None] * torch.tensor([1.0, -0.5, 0.25])[None, :, None, None]


@pytest.fixture
def open_saved(tmp_path: Path) -> Callable[[Any], Checkpoint]:
    """Save an object with ``torch.save``, and open the file."""

    def save_and_open(content: Any) -> Checkpoint:
        torch.save(content, tmp_path / "a.pt")
        return open_checkpoint(tmp_path / "a.pt")

    return save_and_open
