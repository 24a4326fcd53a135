"""Errors of a command: one line for each, and the exit status."""

from pathlib import Path

import pytest
import torch

from kernelviz_callback.commands.file_errors import FileErrors, check_folders


@pytest.mark.parametrize("kind", [ValueError, OSError, ModuleNotFoundError])
def test_an_error_is_one_line_and_the_work_goes_on(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    failures = FileErrors()
    for message in ("no weights", "no weights", "no file"):
        with failures.catch():
            raise kind(message)
    printed = capsys.readouterr()
    assert printed.err == "kernelviz: no weights\nkernelviz: no file\n"
    assert printed.out == ""
    assert failures.status == 2


def test_a_fault_of_the_program_is_not_caught() -> None:
    failures = FileErrors()
    with pytest.raises(ZeroDivisionError), failures.catch():
        print(1 / 0)


def test_a_note_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    failures = FileErrors()
    for _ in range(2):
        failures.note("two layers are alike")
    assert capsys.readouterr() == ("", "kernelviz: two layers are alike\n")
    assert failures.status == 0


def test_names_are_expanded_and_those_that_are_missing_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shell has expanded a glob: shards of one model and a side file are among the names."""
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)] + ["a.pt", "optimizer.pt"]
    paths = [str(tmp_path / name) for name in names]
    for path in paths:
        torch.save({"conv.weight": torch.ones(2, 3, 3, 3)}, path)
    failures = FileErrors()
    missing = str(tmp_path / "missing.pt")
    assert failures.expand([missing, *paths]) == [paths[0], paths[2]]
    assert capsys.readouterr().err.startswith(f"kernelviz: {missing}: ")
    assert failures.status == 2


def test_a_missing_folder_of_an_output_is_named(tmp_path: Path) -> None:
    check_folders([tmp_path / "o.png"])
    with pytest.raises(FileNotFoundError, match=r"missing/o\.png: the folder .*missing does not"):
        check_folders([tmp_path / "o.png", tmp_path / "missing" / "o.png"])
