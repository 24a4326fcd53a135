"""Read folders of torch.distributed.checkpoint that two processes have written."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run
from torch.distributed.checkpoint.metadata import MetadataIndex
from upath import UPath

from kernelviz_callback.checkpoints.checkpoint import load_weights, open_checkpoint
from kernelviz_callback.checkpoints.find import find_checkpoints

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    run("sharded_checkpoint.py", str(folder))
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder, which a test may damage."""
    return shutil.copytree(written / "dcp", tmp_path / "dcp")


def whole_weights(written: Path, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(written / name, weights_only=True)
    return found


def test_shards_are_put_together_bit_for_bit(written: Path) -> None:
    checkpoint = open_checkpoint(written / "dcp")
    whole = whole_weights(written, "dcp.pt")
    assert len(list((written / "dcp").glob("*.distcp"))) == 2
    assert list(checkpoint.layers) == ["0", "1"]
    for name in checkpoint.layers:
        assert torch.equal(checkpoint.read(name), whole[f"{name}.weight"])


def test_a_sharded_checkpoint_of_lightning_is_opened(written: Path) -> None:
    path = written / "lightning.ckpt"
    assert path.is_dir()
    checkpoint = open_checkpoint(path)
    assert (checkpoint.step, checkpoint.epoch) == (2, 0)
    assert list(checkpoint.layers) == ["conv"]
    whole = whole_weights(written, "lightning.pt")
    assert torch.equal(checkpoint.read(), whole["conv.weight"])


def test_folders_are_listed_by_step(written: Path, tmp_path: Path) -> None:
    assert find_checkpoints(written / "dcp") == [str(written / "dcp")]
    shutil.copytree(written / "dcp", tmp_path / "step=9")
    shutil.copytree(written / "dcp", tmp_path / "step=10")
    assert [Path(p).name for p in find_checkpoints(tmp_path)] == ["step=9", "step=10"]


def test_a_remote_folder_is_opened(written: Path) -> None:
    remote = UPath("memory://test-distributed/dcp")
    remote.mkdir(parents=True)
    for path in (written / "dcp").iterdir():
        (remote / path.name).write_bytes(path.read_bytes())
    assert torch.equal(load_weights(remote), whole_weights(written, "dcp.pt")["0.weight"])


def edit(folder: Path, change: Callable[[Any], object]) -> None:
    index = pickle.loads((folder / ".metadata").read_bytes())
    change(index)
    (folder / ".metadata").write_bytes(pickle.dumps(index))


def entry(index: Any, name: str = "model.0.weight") -> tuple[MetadataIndex, Any]:
    return next((k, v) for k, v in index.storage_data.items() if k.fqn == name)


def leave_out(index: Any) -> None:
    del index.storage_data[entry(index)[0]]


def point_to(place: str) -> Callable[[Any], None]:
    return lambda index: setattr(entry(index)[1], "relative_path", place)


def enlarge(index: Any) -> None:
    index.state_dict_metadata["model.0.weight"].size = torch.Size([8000, 8000, 1, 1])


def repeat(index: Any) -> None:
    key, where = entry(index)
    for i in range(1000):
        index.storage_data[MetadataIndex(key.fqn, torch.Size([i, 0, 0, 0]))] = where


def move(index: Any) -> None:
    key, where = entry(index)
    del index.storage_data[key]
    index.storage_data[MetadataIndex(key.fqn, torch.Size([5, 0, 0, 0]))] = where


def rename(index: Any) -> None:
    key, where = entry(index)
    name = "model.line\nbreak.weight"
    del index.storage_data[key]
    index.storage_data[MetadataIndex(name, key.offset)] = where
    index.state_dict_metadata[name] = index.state_dict_metadata.pop(key.fqn)
    index.planner_data[name] = ("model", "line\nbreak.weight")


def test_a_name_with_control_characters_is_escaped(folder: Path) -> None:
    edit(folder, rename)
    assert r"line\nbreak" in open_checkpoint(folder).layers


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (leave_out, "shards are missing"),
        (point_to("../dcp.pt"), "names a file outside the folder, '../dcp.pt'"),
        (point_to("/etc/passwd"), "names a file outside the folder, '/etc/passwd'"),
        (point_to(".."), "names a file outside the folder"),
        (enlarge, "its shards are smaller than its index says"),
        (repeat, "its shards are smaller than its index says"),
        (move, "a shard reaches beyond the whole|shards are missing"),
        (lambda index: setattr(entry(index)[1], "length", 10**15), "its shards are smaller than"),
        (lambda index: setattr(entry(index)[1], "offset", -5), "index .metadata is damaged"),
        (lambda index: setattr(entry(index)[1], "offset", 10**18), "ends before the weights do"),
        (
            lambda index: setattr(entry(index)[1], "offset", 64),
            "damaged|neither a file of torch.save",
        ),
        (lambda index: setattr(index, "storage_data", None), "index .metadata is damaged"),
        (lambda index: setattr(index, "state_dict_metadata", [1]), "index .metadata is damaged"),
    ],
)
def test_a_wrong_index_is_an_error(
    change: Callable[[Any], object], message: str, folder: Path
) -> None:
    edit(folder, change)
    with pytest.raises(ValueError, match=rf"^{folder}: [^\n]*({message})[^\n]*$"):
        load_weights(folder)


def test_truncated_shards_are_an_error(folder: Path) -> None:
    for path in folder.glob("*.distcp"):
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=rf"^{folder}: damaged: [^\n]*$"):
        load_weights(folder)


def test_a_missing_shard_is_an_error(folder: Path) -> None:
    next(folder.glob("*.distcp")).unlink()
    with pytest.raises(FileNotFoundError, match=r"distcp"):
        load_weights(folder)


def test_an_index_that_would_execute_code_does_not(
    written: Path, folder: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    for planner_data in (Evil(), {"model.0.weight": Evil()}):
        index = pickle.loads((written / "dcp" / ".metadata").read_bytes())
        index.planner_data = planner_data
        (folder / ".metadata").write_bytes(pickle.dumps(index))
        with pytest.raises(ValueError, match=r"index \.metadata is damaged"):
            load_weights(folder)
    assert not marker.exists()
    pickle.loads((folder / ".metadata").read_bytes())
    assert marker.exists(), "torch's own reader would execute it"
