"""The command line: help, usage errors and the demo."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import logged_images
from forked import run_python
from PIL import Image
from trained_run import train_with_checkpoints

from kernelviz_callback import __version__, list_snapshots
from kernelviz_callback.cli import main


def kernelviz(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from kernelviz_callback.cli import main; exit(main())"
    return run_python("-c", code, *arguments, cwd=cwd)


@pytest.fixture
def run(fit, tmp_path: Path) -> Path:
    return train_with_checkpoints(fit, tmp_path)


def test_help_and_version_import_no_large_library(tmp_path: Path) -> None:
    code = (
        "import sys; from kernelviz_callback.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'lightning', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    assert kernelviz("--version", cwd=tmp_path).stdout.strip() == f"kernelviz {__version__}"


def test_python_dash_m_runs_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kernelviz_callback", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"kernelviz {__version__}"


def test_a_closed_output_is_no_fault(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.rand(4, 3, 5, 5)}, tmp_path / "a.pt")
    command = f'"{sys.executable}" -m kernelviz_callback show --list a.pt >&-'
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_and_usage_errors_do_not_import_torch() -> None:
    code = """
import sys
from kernelviz_callback.cli import main
for arguments in (["--help"], ["compare", "--help"], ["compare", "a", "--fail-if", "x"],
                  ["show", "a", "-o", "a.doc"], ["evolve", "a", "-o", "a.csv"], []):
    try:
        main(arguments)
    except SystemExit as end:
        assert end.code in (0, 2), end.code
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "lightning", "rich"} & set(done.stdout.splitlines()[-1].split())
    assert "expected a name ending in .png" in done.stderr


def test_only_the_demo_imports_lightning(run: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from kernelviz_callback.cli import main
for command in ("show", "compare", "evolve"):
    status = main([command, {str(run)!r}, "-o", command + ".png"])
    print(command, status, "lightning" in sys.modules, "pytorch_lightning" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    for command in ("show", "compare", "evolve"):
        assert f"{command} 0 False False" in done.stdout.splitlines()


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["demo", "--epochs", "0"]])
def test_usage_errors_exit_with_two(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: kernelviz" in capsys.readouterr().err


def test_a_fault_of_the_program_exits_with_two_and_one_line(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 1 is for conditions of --fail-if alone."""

    def fail(options: object) -> int:
        raise RuntimeError("the first line\nand the second")

    monkeypatch.setattr("kernelviz_callback.commands.compare.run", fail)
    assert main(["compare", "a", "b", "--fail-if", "drift>1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "please report it: RuntimeError: the first line and the second (test_cli.py" in line


@pytest.mark.processes
def test_the_demo_trains_and_prints_the_commands_to_look_at_it(tmp_path: Path) -> None:
    done = kernelviz("demo", "--epochs", "2", "--batches", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "demo" / "version_0"
    assert "tensorboard --logdir runs/demo\n" in done.stdout
    for line in done.stdout.splitlines():
        if line.endswith(".png"):
            assert (tmp_path / line.strip()).is_file()
    assert done.stdout.count(".png") == 6
    assert list(list_snapshots(run / "kernelviz")) == [0, 1, 2, 3, 6]
    assert list(logged_images(run)["kernels/conv1"]) == [0, 1, 2, 3, 6]
    assert "Epoch 1" in done.stdout + done.stderr, "Lightning's progress bar is shown"


@pytest.mark.processes
def test_the_demo_without_scikit_image_names_the_extra_to_install(tmp_path: Path) -> None:
    (tmp_path / "skimage.py").write_text("raise ModuleNotFoundError('no skimage')")
    done = kernelviz("demo", cwd=tmp_path)
    assert done.returncode == 2
    assert 'pip install "kernelviz-callback[demo]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def odd_checkpoint(tmp_path: Path) -> Path:
    """A checkpoint with more layers than fit into the buffer of a pipe, and names in Cyrillic."""
    path = tmp_path / "сеть ✓.pt"
    names = [f"блок{i:03d}{'ы' * 60}.conv.weight" for i in range(2000)]
    torch.save({name: torch.ones(2, 3, 3, 3) for name in names}, path)
    return path


def run_command(
    *arguments: str, encoding: str = "utf-8", output: Any = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "kernelviz_callback", *arguments],
        stdout=output,
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )


@pytest.mark.processes
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_command_writes_names_of_any_characters_to_any_terminal(
    odd_checkpoint: Path, encoding: str
) -> None:
    file, folder = str(odd_checkpoint), odd_checkpoint.parent
    picture = folder / "снимок.png"
    for command in (
        ["show", file, "--list"],
        ["show", file, "-o", str(picture)],
        ["compare", file, file, "-o", str(folder / "c.json"), "-o", str(folder / "c.html")],
        ["evolve", file],
    ):
        done = run_command(*command, encoding=encoding)
        assert done.returncode == 0, done.stderr
        assert b"\\u0431\\u043b\\u043e\\u043a000" in done.stdout or command[1:3] == [file, "-o"]
    done = run_command("show", file, "--layer", "нет", encoding=encoding)
    assert done.returncode == 2
    assert b"\\u043d\\u0435\\u0442" in done.stderr
    assert b"Traceback" not in done.stderr
    assert (folder / "снимок-kernels.png").exists()


@pytest.mark.processes
def test_a_closed_pipe_changes_neither_the_work_nor_the_status(
    odd_checkpoint: Path, tmp_path: Path
) -> None:
    file, page = str(odd_checkpoint), tmp_path / "c.json"
    other = tmp_path / "other.pt"
    torch.save({"блок000.conv.weight": torch.randn(2, 3, 3, 3)}, other)
    for command, status in (
        (["show", file, "--list"], 0),
        (["compare", file, file, "--list"], 0),
        (["compare", file, str(other), "--fail-if", "drift>0", "-o", str(page)], 1),
        (["compare", "--help"], 0),
    ):
        reader, writer = os.pipe()
        os.close(reader)
        done = run_command(*command, output=writer)
        os.close(writer)
        assert done.returncode == status, done.stderr
        assert b"Traceback" not in done.stderr
        assert b"BrokenPipe" not in done.stderr
    assert page.exists()


@pytest.mark.processes
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_is_an_error(odd_checkpoint: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run_command("show", str(odd_checkpoint), "--list", output=full)
    assert done.returncode == 2
    assert done.stderr == b"kernelviz: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("command", ["show", "compare", "evolve"])
def test_help_and_errors_of_the_probe_name_only_what_a_command_can_use(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_python = ("a tensor", "train_batch", "probe=", "probe_size", "layers that read")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    assert "image file" in told
    files = [str(tmp_path / f"{name}.pt") for name in "ab"][: 1 + (command != "show")]
    for name in files:
        torch.save({"conv.weight": torch.randn(4, 3, 7, 7)}, name)
    small = tmp_path / "small.png"
    Image.new("RGB", (40, 5)).save(small)
    (tmp_path / "notes.png").write_text("no picture")
    suffix = "html" if command == "evolve" else "png"
    more = ["--responses"] if command == "compare" else []
    for probe in ("train_batch", str(tmp_path / "notes.png"), str(small)):
        arguments = [*files, "--probe", probe, "-o", str(tmp_path / f"o.{suffix}"), *more]
        status = main([command, *arguments])
        if probe == str(small) and command == "evolve":
            continue  # the page itself says that the image is too small
        assert status == 2
        told += capsys.readouterr().err
    for word in of_python:
        assert word not in told.replace("'train_batch' is not a file", "")
