"""Log directories that are URLs: snapshots, pictures and resuming."""

from pathlib import Path

import pytest
from conftest import DEFAULT_STEPS
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from kernelviz_callback import KernelVizCallback, list_snapshots, load_snapshot
from kernelviz_callback.storage import as_folder


@pytest.mark.parametrize("scheme", ["memory://", "file://"])
@pytest.mark.parametrize("kind", ["none", "csv", "tensorboard"])
def test_snapshots_and_pictures_are_written_to_a_url(
    fit, tmp_path: Path, scheme: str, kind: str
) -> None:
    root = f"{scheme}{tmp_path}/logs"
    loggers = {
        "none": lambda: False,
        "csv": lambda: CSVLogger(root, name="run"),
        "tensorboard": lambda: TensorBoardLogger(root, name="run"),
    }
    trainer = fit(KernelVizCallback(), logger=loggers[kind](), default_root_dir=root)
    folder = as_folder(trainer.log_dir) / "kernelviz"
    assert list(list_snapshots(folder)) == DEFAULT_STEPS
    for step, path in list_snapshots(folder).items():
        assert load_snapshot(path).step == step
    pictures = [path.name for path in folder.iterdir() if path.name.startswith("kernels-conv")]
    assert len(pictures) == (0 if kind == "tensorboard" else len(DEFAULT_STEPS))
    assert (folder / "probe.png").exists()
    assert not Path(scheme).exists(), "the URL must not be used as a local path"


@pytest.mark.parametrize("scheme", ["memory://", "file://"])
def test_a_training_resumes_in_the_run_folder_at_a_url(fit, tmp_path: Path, scheme: str) -> None:
    root = f"{scheme}{tmp_path}/logs"
    checkpoint = tmp_path / "last.ckpt"
    first = fit(KernelVizCallback(), logger=False, default_root_dir=root)
    first.save_checkpoint(checkpoint)
    fit(
        KernelVizCallback(),
        logger=False,
        default_root_dir=root,
        ckpt_path=checkpoint,
        max_epochs=3,
    )
    assert list(list_snapshots(f"{root}/kernelviz")) == [*DEFAULT_STEPS, 12]
    fit(KernelVizCallback(), logger=False, default_root_dir=root)
    assert list(list_snapshots(f"{root}/kernelviz-2")) == DEFAULT_STEPS
