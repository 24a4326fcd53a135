"""Call ``kernelviz compare`` on real files."""

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import TinyNet, logged_images
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trained_run import train_with_checkpoints

from kernelviz_callback.cli import main


@pytest.fixture
def run(fit, tmp_path: Path) -> Path:
    return train_with_checkpoints(fit, tmp_path)


def test_compare_reads_files_of_different_kinds(run: Path, tmp_path: Path, capsys) -> None:
    plain = tmp_path / "plain.pt"
    torch.save(TinyNet().conv.state_dict(), plain)
    first = run / "kernelviz" / "step-00000000.safetensors"
    names = [str(first), str(run / "checkpoints" / "*step=8.ckpt"), str(plain)]
    assert main(["compare", *names, "--match", "weights"]) == 0
    out = capsys.readouterr().out
    assert out.count("epoch=1-step=8") >= 1
    assert "plain" in out


def test_compare_writes_every_kind_of_file(run: Path, tmp_path: Path, capsys) -> None:
    outputs = [tmp_path / f"compare.{s}" for s in ("png", "html", "json", "csv", "svg", "pdf")]
    options = [o for path in outputs for o in ("-o", str(path))]
    events = tmp_path / "events"
    assert main(["compare", str(run), *options, "--tensorboard", str(events)]) == 0
    printed = capsys.readouterr().out
    for path in outputs:
        assert path.stat().st_size > 1000
        assert str(path) in printed.replace("\n", "")
    numbers = json.loads((tmp_path / "compare.json").read_text())
    with (tmp_path / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = numbers["checkpoints"][-1]
    assert float(rows[-1]["change_from_first"]) == last["filters"][-1]["change_from_first"]
    assert [c["step"] for c in numbers["checkpoints"]] == [0, 1, 2, 4, 8]
    logged = EventAccumulator(str(events), size_guidance={"images": 0})
    logged.Reload()
    drift = {e.step: e.value for e in logged.Scalars("compare/conv/drift")}
    assert drift[8] == pytest.approx(last["numbers"]["drift"], rel=1e-6)
    assert list(logged_images(events)["kernels/conv"]) == [0, 1, 2, 4, 8]
    assert list(logged_images(events)["compare/conv"]) == [8]


def test_conditions_decide_the_exit_status(run: Path, capsys) -> None:
    assert main(["compare", str(run), "--fail-if", "drift>1000"]) == 0
    assert main(["compare", str(run), "--fail-if", "drift>1000", "--fail-if", "drift>0"]) == 1
    assert "drift>0 holds for 4 of 4" in capsys.readouterr().err
    different = ["compare", str(run), "torchvision:resnet18"]
    assert main([*different, "--fail-if", "drift>1000"]) == 2
    assert "cannot be checked" in capsys.readouterr().err
    assert main([*different, "--fail-if", "drift>0"]) == 1


def test_outputs_that_cannot_be_written_are_refused_before_the_work(
    run: Path, tmp_path: Path, capsys
) -> None:
    out = str(tmp_path / "missing" / "o.html")
    assert main(["compare", str(run), "-o", out]) == 2
    printed = capsys.readouterr()
    assert "missing does not exist" in printed.err
    assert "drift" not in printed.out
    assert main(["compare", str(run), "--responses", "-o", str(tmp_path / "o.csv")]) == 2
    assert "--responses is for a picture" in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_of_events_is_an_error(
    run: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "events").touch()
    assert main(["compare", str(run), "--tensorboard", str(tmp_path / "events")]) == 2
    assert f"{tmp_path}/events: it cannot be written: File exists" in capsys.readouterr().err
    (tmp_path / "o.png").mkdir()
    outputs = ["-o", str(tmp_path / "o.png"), "-o", str(tmp_path / "o.json")]
    assert main(["compare", str(run), *outputs]) == 2
    assert (tmp_path / "o.json").exists()


def test_names_with_brackets_are_printed_unchanged(tmp_path: Path, capsys) -> None:
    names = [tmp_path / f"net[{n}].pt" for n in ("a", "b")]
    for name in names:
        torch.save(TinyNet().conv.state_dict(), name)
    assert main(["compare", *map(str, names), "--match", "index"]) == 0
    out = capsys.readouterr().out
    assert "net[a]" in out
    assert "net[b]" in out


def test_checkpoints_of_a_folder_are_compared_in_the_order_of_their_steps(
    tmp_path: Path, capsys
) -> None:
    steps = {"val_loss=0.5": 100, "val_loss=0.4": 900, "val_loss=0.45": 500, "last": 900}
    for name, step in steps.items():
        content = {"state_dict": TinyNet().state_dict(), "global_step": step}
        torch.save(content, tmp_path / f"{name}.ckpt")
    out = tmp_path / "o.json"
    assert main(["compare", str(tmp_path), "-o", str(out), "--match", "index"]) == 0
    listed = [c["step"] for c in json.loads(out.read_text())["checkpoints"]]
    assert listed == [100, 500, 900, 900]


def test_unreadable_files_are_reported_and_the_others_compared(
    run: Path, tmp_path: Path, capsys
) -> None:
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(b"PK\x03\x04 nonsense")
    assert main(["compare", str(run), str(bad), str(tmp_path / "missing.pt")]) == 2
    printed = capsys.readouterr()
    assert "step-00000008" in printed.out
    errors = printed.err.splitlines()
    assert any(str(bad) in line for line in errors)
    assert any("missing.pt: the file or folder does not exist" in line for line in errors)
    assert main(["compare", str(bad), str(run / "kernelviz" / "step-00000000.safetensors")]) == 2
    assert "found 1" in capsys.readouterr().err


def test_pretrained_networks_are_compared(tmp_path: Path, capsys) -> None:
    package = find_spec("facenet_pytorch")
    assert package is not None
    data = Path(package.origin).parent / "data"
    names = [str(data / f"{net}.pt") for net in ("pnet", "rnet", "onet")]
    assert main(["compare", *names, "-o", str(tmp_path / "c.png")]) == 0
    assert "10 filters 3x3x3" in capsys.readouterr().out
