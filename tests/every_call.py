"""Call everything that is public under a default device and a default dtype; run by a test.

    python tests/every_call.py DEVICE DTYPE

All tensors that are given to the package name their device and their dtype. What comes back is
printed: digests of tensors and files, one line each. Files are written to the working directory.
"""

import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import kernelviz_callback as kv
from kernelviz_callback.cli import main

GENERATOR = torch.Generator().manual_seed(0)
ON_CPU = {"device": "cpu", "dtype": torch.float32}


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, **ON_CPU)


def show(what: str, value: object) -> None:
    """Print a digest of a value: a tensor with its dtype, a picture, a file, or anything else."""
    if isinstance(value, kv.Picture):
        value = value.pixels
    if isinstance(value, Tensor):
        content = value.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
        what = f"{what} {value.dtype} {tuple(value.shape)} {value.device}"
    else:
        content = value.read_bytes() if isinstance(value, Path) else repr(value).encode()
    print(what, hashlib.sha256(content).hexdigest()[:16])


def network() -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, **ON_CPU),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, **ON_CPU),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2, **ON_CPU),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.2 * drawn(*parameter.shape))
    return net


def call_functions(folder: Path) -> None:
    show("chart", kv.make_chart(64))
    pixels = (drawn(24, 32, 3).abs() * 80).clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(pixels).save(folder / "photo.png")
    probes = [kv.load_probe(folder / "photo.png"), kv.load_probe(Image.fromarray(pixels[..., 0]))]
    probes += [kv.load_probe(pixels.transpose(2, 0, 1)), kv.load_probe(np.float64(pixels[..., 0]))]
    probes += [kv.load_probe(drawn(3, 24, 24)), kv.load_probe(None, size=64)]
    for probe in probes:
        show(f"probe {probe.name}", probe.image)
        show("picture", probe.to_picture())
        show("grey", probe.for_channels(1))
    probe = probes[-1]
    for shape, groups in (((24, 3, 7, 7), 1), ((9, 1, 3, 5), 3), ((12, 5, 3, 3), 1)):
        weights = drawn(*shape)
        weights[0], weights[1], weights[3, 0, 0, 0] = 0, 20 * weights[2], torch.nan
        first = weights + drawn(*shape)
        energy = kv.measure_probe(
            probe.for_channels(shape[1] * groups), shape[2:], channels=shape[1], groups=groups
        )
        health = kv.kernel_health(
            weights,
            "c",
            first=first,
            previous=weights,
            groups=groups,
            steps_since_previous=1,
            energy=energy,
        )
        show("health", health.to_dict())
        for name, values in vars(health.filters).items():
            show(name, values)
        for scale in ("filter", "layer"):
            show("grid", kv.kernel_grid(weights, scale=scale))
        if groups == 1:
            image = probe.for_channels(shape[1])
            responses = kv.channel_responses(image, weights.nan_to_num())
            show("responses", responses)
            show("sum", kv.summed_responses(image, weights.nan_to_num()))
            show("response grid", kv.response_grid(responses[:4]))
        show("principal", kv.principal_planes(weights.nan_to_num()).planes)
    for shape in ((24, 2, 31), (6, 3, 3, 5, 5)):
        weights = drawn(*shape)
        show("health", kv.kernel_health(weights, "c", first=drawn(*shape)).to_dict())
        show("grid", kv.kernel_grid(weights))
    gain = kv.frequency_gain(drawn(8, 2, 31))
    show("gain", gain)
    show("gain grid", kv.gain_grid(gain))
    net = network()
    show("layers", list(kv.find_convolutions(net, "*")))
    show("effective", kv.effective_weight(net[0]))
    maps = kv.feature_maps(net, {"2": net[2]}, probe.for_channels(3))
    show("maps", maps.maps["2"].values)
    health.plot()


def call_files(folder: Path) -> None:
    run, geometry = folder / "run", {"conv": kv.geometry_of(network()[0])}
    weights = drawn(8, 3, 5, 5)
    for step in range(5):
        weights = weights + 0.1 * drawn(8, 3, 5, 5)
        named = {"conv": weights}
        health = {"conv": kv.kernel_health(weights, "conv")} if step % 2 else {}
        kv.save_snapshot(kv.Snapshot(step, 0, 0.0, named, geometry, health=health), run)
        torch.save({"state_dict": named | {"conv.weight": weights}}, folder / f"step={step}.ckpt")
    for step, path in kv.list_snapshots(run).items():
        show(f"snapshot {step}", kv.load_snapshot(path).weights["conv"])
    checkpoint = kv.open_checkpoint(folder / "step=3.ckpt")
    show("weights", kv.load_weights(folder / "step=3.ckpt"))
    show("torchvision", kv.load_weights("torchvision:resnet18"))
    for kind, picture in kv.checkpoint_pictures(checkpoint, probe=kv.load_probe(size=64)).items():
        show(kind, picture)
    other = network()
    for given in ((run,), (folder / "step=0.ckpt", folder / "step=4.ckpt", other)):
        for match in ("index", "weights", "responses"):
            comparison = kv.compare(*given, match=match, probe=folder / "photo.png")
            numbers = comparison.to_dict()
            for each in numbers["checkpoints"]:
                each["name"] = ""
            show(f"comparison {match}", numbers)
            show("strips", kv.comparison_picture(comparison))
            comparison.plot()
    call_commands(folder, run)


def call_commands(folder: Path, run: Path) -> None:
    for command, suffixes in (
        ("show", ("png",)),
        ("compare", ("png", "html", "json", "csv")),
        ("evolve", ("png", "gif", "html")),
    ):
        outputs = [f"{command}.{suffix}" for suffix in suffixes]
        saved = [word for output in outputs for word in ("-o", output)]
        assert main([command, "run", *saved]) == 0
        for path in sorted(folder.glob(f"{command}*.*")):
            show(path.name, path)
    assert main(["compare", "run", "--tensorboard", "board"]) == 0


def train_with_watcher(folder: Path) -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with kv.KernelWatcher(net, folder / "loop", layers="*", loggers=[], scale="run") as watcher:
        for step in range(4):
            watcher.snapshot(step)
            loss = net(drawn(2, 3, 16, 16)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    show_run(folder / "loop" / "kernelviz")


def train_with_callback(folder: Path) -> None:
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Batches:  # a DataLoader cannot work with the default device "meta"
        def __iter__(self) -> Iterator[list[Tensor]]:
            return ([drawn(4, 3, 16, 16)] for _ in range(4))

        def __len__(self) -> int:
            return 4

    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        callbacks=[kv.KernelVizCallback(layers="*", probe="train_batch")],
        default_root_dir=folder / "fit",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), Batches())
    for name, value in sorted(trainer.callback_metrics.items()):
        show(name, value)
    show_run(folder / "fit" / "kernelviz")


def show_run(run: Path) -> None:
    for step, path in kv.list_snapshots(run).items():
        for name, weights in kv.load_snapshot(path).weights.items():
            show(f"{step} {name}", weights)
    for path in sorted(run.glob("*.*g*")):
        show(path.name, path)


def call_everything(folder: Path) -> None:
    calls: tuple[Callable[[Path], None], ...] = (
        call_functions,
        call_files,
        train_with_watcher,
        train_with_callback,
    )
    for call in calls:
        call(folder)


if __name__ == "__main__":
    warnings.filterwarnings("error", "kernelviz")
    torch.set_default_device(sys.argv[1])
    torch.set_default_dtype(getattr(torch, sys.argv[2]))
    call_everything(Path())
