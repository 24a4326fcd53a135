"""Folders that are one checkpoint, shards of one model, and side files."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
from kernelviz_callback.checkpoints.find import (
    find_checkpoints,
    find_newest,
    without_repeated_shards,
)
from kernelviz_callback.cli import main

LAYERS = ["0", "1", "2"]


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 3))


def save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)


def shards(folder: Path, name: str, *, index: bool) -> dict[str, str]:
    """Save the network in three shards, as Hugging Face does."""
    base, suffix = name.split(".")
    weights = network().state_dict()
    places = {n: f"{base}-{int(n[0]) + 1:05d}-of-00003.{suffix}" for n in weights}
    for place in set(places.values()):
        save(folder / place, {n: t for n, t in weights.items() if places[n] == place})
    if index:
        (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": places}))
    return places


def side_files(folder: Path) -> None:
    """Save what transformers and accelerate put beside the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    net = network()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.rand(1, 3, 12, 12)).sum().backward()
    optimizer.step()
    names = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "scaler.pt")
    for name in (*names, "training_args.bin", "optimizer.bin", "random_states_0.pkl"):
        torch.save(optimizer.state_dict(), folder / name)
    (folder / "trainer_state.json").write_text("{}")
    (folder / "._model.safetensors").write_bytes(b"\0\5\x16\7")  # a copy from a Mac


def assert_network(location: Path | str) -> None:
    checkpoint = open_checkpoint(location)
    assert list(checkpoint.layers) == LAYERS
    for name, layer in zip(LAYERS, network(), strict=True):
        assert torch.equal(checkpoint.read(name), layer.weight)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "other.safetensors"])
def test_shards_are_one_checkpoint(name: str, index: bool, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "model"
    places = shards(folder, name, index=index)
    side_files(folder)
    assert find_checkpoints(folder) == [str(folder)]
    assert_network(folder)
    for place in {*places.values(), *([f"{name}.index.json"] if index else [])}:
        assert_network(folder / place)
    first = min(places.values())
    assert find_checkpoints(f"{folder}/*") == [str(folder / first)]
    given = sorted(str(path) for path in folder.iterdir())  # as a shell expands folder/*
    assert main(["compare", *given]) == 2
    assert "expected two or more checkpoints to compare; found 1" in capsys.readouterr().err
    assert main(["compare", str(folder), str(folder / first)]) == 0


@pytest.mark.parametrize("index", [True, False])
def test_a_missing_shard_is_named(index: bool, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shards(folder, "model.safetensors", index=index)
    (folder / "model-00002-of-00003.safetensors").unlink()
    for location in (folder, folder / "model-00001-of-00003.safetensors"):
        with pytest.raises(ValueError, match=rf"^{location}: 1 of the 3 files .*model-00002-of-"):
            open_checkpoint(location)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"weight_map": 3}', "{", '{"weight_map": {"a": "../b.bin"}}']
)
def test_a_wrong_index_is_an_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"^[^\n]*(expected an index|outside the folder)[^\n]*$"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_checkpoints_of_hugging_face_are_read_with_their_steps(
    name: str, tmp_path: Path, capsys: Any
) -> None:
    folders = [tmp_path / f"checkpoint-{step}" for step in (9, 10, 100)]
    for folder in folders:
        save(folder / name, network().state_dict())
        side_files(folder)
        assert_network(folder)
        assert find_checkpoints(folder) == [str(folder)]
    assert find_checkpoints(tmp_path) == [str(folder) for folder in folders]
    assert find_checkpoints(f"{tmp_path}/checkpoint-*") == [str(folder) for folder in folders]
    assert [open_checkpoint(folder).step for folder in folders] == [9, 10, 100]
    assert open_checkpoint(folders[0] / name).step == 9
    out = tmp_path / "o.json"
    assert main(["compare", str(tmp_path), "--fail-if", "drift>9", "-o", str(out)]) == 0
    assert [c["step"] for c in json.loads(out.read_text())["checkpoints"]] == [9, 10, 100]
    assert main(["show", str(tmp_path), "--list"]) == 0
    assert "the newest of 3 checkpoints" in capsys.readouterr().out
    (tmp_path / "final").mkdir()
    save(tmp_path / name, network().state_dict())
    assert len(find_checkpoints(tmp_path)) == 4, "with a last model beside the checkpoints"


def test_a_model_that_was_saved_in_two_formats_is_one(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        save(tmp_path / "repository" / name, network().state_dict())
    assert find_checkpoints(tmp_path / "repository") == [str(tmp_path / "repository")]
    assert_network(tmp_path / "repository")


def test_folders_of_deepspeed_are_read(tmp_path: Path) -> None:
    def states(folder: Path, step: int) -> None:
        folder.mkdir(parents=True)
        content = {"module": network().state_dict(), "global_steps": step, "optimizer": None}
        torch.save(content, folder / "mp_rank_00_model_states.pt")
        torch.save({}, folder / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")

    lightning = tmp_path / "epoch=1-step=7.ckpt"
    states(lightning / "checkpoint", 7)
    (lightning / "latest").write_text("checkpoint")
    assert_network(lightning)
    assert find_checkpoints(tmp_path) == [str(lightning)]
    own = tmp_path / "own"
    for step in (5, 10):
        states(own / f"global_step{step}", step)
    (own / "latest").write_text("global_step10")
    folders = [str(own / f"global_step{step}") for step in (5, 10)]
    assert find_checkpoints(own) == folders
    assert [open_checkpoint(folder).step for folder in folders] == [5, 10]
    for rank in (0, 1):
        path = tmp_path / "split" / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"
        save(path, {})
    with pytest.raises(ValueError, match=r"split the weights into 2 files.* zero_to_fp32\.py"):
        open_checkpoint(tmp_path / "split")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["data.pkl", "version", "data/0"], "an unpacked file of torch.save; pack it again"),
        (["saved_model.pb", "variables/x"], "a SavedModel of TensorFlow"),
        (["optimizer.pt", "scheduler.pt"], "it has side files, optimizer.pt, scheduler.pt, but"),
        (["unet/model.safetensors", "vae/model.safetensors"], "in its subfolders, unet, vae; name"),
        (["a/kernelviz/x", "b/last.pt"], "in its subfolders, a, b; name one of them"),
        (["notes.doc"], "found no checkpoint in this folder|a folder without a checkpoint"),
    ],
)
def test_a_folder_without_a_checkpoint_is_explained(
    files: list[str], message: str, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / "it" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "it" / file).write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=rf"^{tmp_path}/it: [^\n]*({message})[^\n]*$"):
        find_checkpoints(tmp_path / "it")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/it: [^\n]*({message})[^\n]*$"):
        open_checkpoint(tmp_path / "it")


def test_runs_below_lightning_logs_are_found(tmp_path: Path) -> None:
    for run in (2, 10):
        for step in (1, 3):
            save(tmp_path / f"lightning_logs/version_{run}/checkpoints/step={step}.ckpt", {})
    (tmp_path / "lightning_logs/version_11").mkdir()
    expected = [
        str(tmp_path / f"lightning_logs/version_{run}/checkpoints/step={step}.ckpt")
        for run in (2, 10)
        for step in (1, 3)
    ]
    assert find_checkpoints(tmp_path) == find_checkpoints(tmp_path / "lightning_logs") == expected
    assert find_newest(expected) == expected[-1]


def test_the_newest_checkpoint_has_the_highest_step_or_was_written_last(tmp_path: Path) -> None:

    for time, name in enumerate(["last.pt", "step=7.pt", "best.pt", "step=10.pt"]):
        save(tmp_path / name, network().state_dict())
        os.utime(tmp_path / name, (time, time))
    assert find_newest(find_checkpoints(tmp_path)) == str(tmp_path / "step=10.pt")
    os.utime(tmp_path / "last.pt", (9, 9))
    assert find_newest(find_checkpoints(tmp_path)) == str(tmp_path / "last.pt")
    assert find_newest(find_checkpoints(f"{tmp_path}/step*")) == str(tmp_path / "step=10.pt")


def test_checkpoints_of_the_imagenet_example_are_ordered_by_epoch(tmp_path: Path) -> None:
    names = {"checkpoint.pth.tar": 9, "model_best.pth.tar": 3, "a.pth.tar": 5}
    for name, epoch in names.items():
        content: Any = {"epoch": epoch, "state_dict": network().state_dict()}
        save(tmp_path / name, content)
    found = [Path(name).name for name in find_checkpoints(tmp_path)]
    assert found == ["model_best.pth.tar", "a.pth.tar", "checkpoint.pth.tar"]


def test_folds_are_not_shards(tmp_path: Path) -> None:
    for fold in (1, 2):
        save(tmp_path / f"fold-{fold:02d}-of-02.pt", network().state_dict())
    assert len(find_checkpoints(tmp_path)) == 2
    for fold in (1, 2):
        save(tmp_path / f"same/net-{fold:05d}-of-00002.pt", network().state_dict())
    with pytest.raises(ValueError, match=r"not a part of one model: '0.weight' is in another"):
        open_checkpoint(tmp_path / "same")


def test_the_weights_of_a_run_of_yolo_are_found(tmp_path: Path) -> None:
    for name in ("best.pt", "last.pt"):
        save(tmp_path / "train" / "weights" / name, network().state_dict())
    found = [str(tmp_path / "train" / "weights" / name) for name in ("best.pt", "last.pt")]
    assert find_checkpoints(tmp_path / "train") == found


def test_links_that_lead_nowhere_or_to_a_file_beside_them_are_left_out(tmp_path: Path) -> None:
    """Lightning's ``save_last="link"`` makes ``last.ckpt`` a link."""
    folder = tmp_path / "checkpoints"
    save(folder / "step=1.ckpt", network().state_dict())
    save(folder / "step=2.ckpt", network().state_dict())
    save(tmp_path / "elsewhere.ckpt", network().state_dict())
    (folder / "last.ckpt").symlink_to("step=2.ckpt")
    (folder / "start.ckpt").symlink_to(tmp_path / "elsewhere.ckpt")
    (folder / "deleted.ckpt").symlink_to("step=3.ckpt")
    (folder / "itself.ckpt").symlink_to("itself.ckpt")
    names = [Path(name).name for name in find_checkpoints(folder)]
    assert names == ["step=1.ckpt", "step=2.ckpt", "start.ckpt"]
    assert_network(folder / "last.ckpt")
    for name, reason in (
        ("deleted", r"a link to 'step=3\.ckpt', which does not exist"),
        ("itself", "a link that leads back to itself"),
    ):
        message = rf"{name}\.ckpt: {reason}"
        for find in (open_checkpoint, find_checkpoints):
            with pytest.raises(FileNotFoundError, match=message):
                find(folder / f"{name}.ckpt")


def test_the_iteration_is_the_step(tmp_path: Path) -> None:
    weights = {"state_dict": network().state_dict()}
    for name, more in (
        ("iter_500.pth", {}),
        ("latest.pth", {"meta": {"iter": 2000, "epoch": 3}}),
        ("best_mIoU_iter_1000.pth", {}),
    ):
        torch.save(weights | more, tmp_path / name)
    opened = [open_checkpoint(name) for name in find_checkpoints(tmp_path)]
    assert [(each.step, each.epoch) for each in opened] == [(500, None), (1000, None), (2000, 3)]


def test_names_that_the_user_has_written_are_not_left_out(tmp_path: Path) -> None:
    for name in (".baseline", "new.ckpt", "newer.ckpt", "hparams.yaml", "events.out.tfevents.1"):
        (tmp_path / name).write_bytes(b"something")
    (tmp_path / "notes.txt").mkdir()
    given = [str(tmp_path / name) for name in (".baseline", "new.ckpt", "absent.json", "notes.txt")]
    assert without_repeated_shards(given) == given
    expanded = sorted(map(str, tmp_path.glob("[!.]*")))
    kept = [Path(name).name for name in without_repeated_shards(expanded)]
    assert kept == ["new.ckpt", "newer.ckpt", "notes.txt"]


def test_empty_folders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "lightning_logs" / "version_0" / "kernelviz").mkdir(parents=True)
    (tmp_path / "lightning_logs" / "version_1").mkdir()
    save(tmp_path / "lightning_logs/version_0/checkpoints/a.ckpt", network().state_dict())
    for location in (tmp_path, tmp_path / "lightning_logs" / "version_*"):
        assert [Path(name).name for name in find_checkpoints(location)] == ["a.ckpt"]
    with pytest.raises(FileNotFoundError, match="no checkpoint in the 1 folders that match"):
        find_checkpoints(tmp_path / "lightning_logs" / "version_1*")


def test_a_metric_in_a_name_is_no_step(tmp_path: Path) -> None:
    for epoch, loss in ((0, "9.12"), (9, "0.30")):
        content = {"state_dict": network().state_dict(), "global_step": 10 + epoch, "epoch": epoch}
        torch.save(content, tmp_path / f"epoch={epoch}-train_loss_step={loss}.ckpt")
    assert find_newest(find_checkpoints(tmp_path)).endswith("0.30.ckpt")
