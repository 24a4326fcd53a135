"""Whether the package works for those who only install it.

`make dist` runs this with the Python of an environment that has nothing but the wheel and what that
asks for. Whatever fails ends it with a traceback.
"""

import subprocess
import sysconfig
import tempfile
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tab_boards import ROUTE, Board, served
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import kernelviz_callback
from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot

STEPS = [0, 1, 2, 4, 8]  # start, early steps, ends of two epochs of 4
LAYER = "layers.0"


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 4))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader[Any]:
        images, labels = torch.rand(32, 3, 16, 16), torch.randint(4, (32,))
        return DataLoader(TensorDataset(images, labels), batch_size=8)


def main() -> None:
    home = Path(sysconfig.get_path("purelib"))
    assert Path(kernelviz_callback.__file__).parent == home / "kernelviz_callback"
    number = version("kernelviz-callback")
    assert kernelviz("--version") == f"kernelviz {number}\n"
    commands = ("demo", "show", "compare", "evolve")
    assert all(f"    {command} " in kernelviz("--help") for command in commands)
    with tempfile.TemporaryDirectory() as folder:
        run = trained(Path(folder) / "logs")
        look_at_files(run)
        look_at_tab(run, log=Path(folder) / "log")
        look_at_commands(run, Path(folder))
    print(f"kernelviz-callback {number} works where only its wheel was installed.")


def kernelviz(*arguments: str) -> str:
    command = [Path(sysconfig.get_path("scripts")) / "kernelviz", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def trained(logs: Path) -> Path:
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=TensorBoardLogger(logs, name=None, version="run"),
        callbacks=[KernelVizCallback()],
        enable_progress_bar=False,
    )
    torch.manual_seed(0)
    trainer.fit(Net())
    return logs / "run"


def look_at_files(run: Path) -> None:
    assert list(list_snapshots(run / "kernelviz")) == STEPS
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    for tag in (f"kernels/{LAYER}", f"responses/{LAYER}"):
        images = events.Images(tag)
        assert [image.step for image in images] == STEPS, tag
        assert all(image.width > 100 and image.height > 100 for image in images), tag


def look_at_tab(run: Path, log: Path) -> None:
    [tab] = entry_points(group="tensorboard_plugins", name="kernels")
    assert tab.dist is not None
    assert tab.dist.name == "kernelviz-callback"
    with served(f"--logdir={run.parent}", "--reload_interval=1", log=log) as board:
        board.until(lambda timeline: len(ids_of(timeline)) == len(STEPS))
        assert board.get("/data/plugins_listing").json()["kernels"]["enabled"]
        index = board.get(f"{ROUTE}/index.js")
        assert index.status == 200
        assert b"export function render" in index.content
        for path in list_snapshots(run / "kernelviz").values():
            look_at_payload(board, path)


def ids_of(timeline: Any) -> list[str]:
    layers = timeline["runs"][0]["layers"] if timeline["runs"] else []
    return [each["id"] for each in layers[0]["snapshots"]] if layers else []


def look_at_payload(board: Board, path: Path) -> None:
    """It begins with the largest magnitude of each filter."""
    snapshot = load_snapshot(path)
    expected = snapshot.weights[LAYER].abs().amax(dim=(1, 2, 3)).numpy()
    [one] = [i for i in ids_of(board.timeline()) if int(i.split("-")[0]) == snapshot.step]
    [payload] = board.payloads("run", LAYER, [one])
    assert np.array_equal(np.frombuffer(payload, "<f4", count=len(expected)), expected)


def look_at_commands(run: Path, folder: Path) -> None:
    """Each command reads files of the package that are not Python."""
    kernelviz("evolve", str(run), "-o", str(folder / "report.html"), "-o", str(folder / "film.png"))
    kernelviz("compare", str(run), "-o", str(folder / "compare.html"))
    assert (folder / "film.png").stat().st_size > 1000
    assert all("</html>" in (folder / f"{name}.html").read_text() for name in ("report", "compare"))


if __name__ == "__main__":
    main()
