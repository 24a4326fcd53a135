"""Which files together are one checkpoint: shards of one model, and folders with side files."""

import errno
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kernelviz_callback.checkpoints.distributed import INDEX
from kernelviz_callback.checkpoints.file_kinds import CHECKPOINT_SUFFIXES
from kernelviz_callback.checkpoints.safe_pickle import quoted
from kernelviz_callback.storage import Folder, read_whole

SUBFOLDERS = ("kernelviz", "checkpoints", "weights")  # of a run folder, with checkpoints
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
_INDEX_SUFFIX = ".index.json"
_MOST_BRACKETS = 1000  # in an index, which has two or three; names of tensors may have others
_LARGEST_INDEX = 12 << 20  # bytes; that of DeepSeek-V3, with 90,000 tensors, has 9 MB
# Files in which programs keep what is not the weights: the state of the optimizer, of the schedule,
# of the random numbers, and settings.
_SIDE_FILES = re.compile(
    r"(optimizer|scheduler|lr_scheduler|sampler|dl_state_dict|scaler|grad_scaler)(_\d+)?\.(pt|bin)"
    r"|(rng_state|random_states|custom_checkpoint)(_\d+)*\.(pth|pkl|pt)"
    r"|training_args\.bin|.*_optim_states\.pt|.*\.(json|md|txt|ya?ml|csv)|events\.out\..*|\..*"
)
# The names under which Hugging Face saves one model, the preferred format first.
_WHOLE = tuple(
    f"{name}{suffix}"
    for name, suffix in (
        ("model", ".safetensors"),
        ("pytorch_model", ".bin"),
        ("diffusion_pytorch_model", ".safetensors"),
        ("diffusion_pytorch_model", ".bin"),
        ("adapter_model", ".safetensors"),
        ("adapter_model", ".bin"),
    )
)
_STEP_FOLDER = re.compile(r"(?:checkpoint|global_?step|step|epoch|iter)[-_=]?\d+.*")
_DEEPSPEED = re.compile(r"(zero_pp_rank_\d+_)?mp_rank_\d+_model_states\.pt")
_MOST_LISTED = 5  # names in a message


def files_of(path: Folder) -> list[Folder]:
    """List the files whose tensors together are the checkpoint at a path.

    Args:
        path: A file, of which the other shards are found, an index of shards, or a folder.

    Returns:
        One path or more. A path may be a folder of ``torch.distributed.checkpoint``.

    Raises:
        ValueError: If a folder is not one checkpoint, or shards are missing.
        OSError: If the folder or an index cannot be read.
    """
    if path.is_dir():
        return _files_of_folder(path)
    if path.name.endswith(_INDEX_SUFFIX):
        return _files_of_index(path)
    return _shards_of(path)


def is_checkpoint_folder(folder: Folder) -> bool:
    """Return whether a folder is one checkpoint, and not a folder with several of them."""
    if (folder / INDEX).exists():
        return True
    names = {path.name for path in folder.iterdir()}
    found = weight_files(names)
    if _model_states(names) or any((folder / name / INDEX).exists() for name in _fsdp(names)):
        return True
    if found:
        are_of_one_model = all(name in _WHOLE or _SHARD.fullmatch(name) for name in found)
        return are_of_one_model and len(found) == 1 and not any(map(_is_step_folder, names))
    return len(_deepspeed_folders(folder, names)) == 1


def checkpoints_in(folder: Folder) -> list[Folder]:
    """List the checkpoints in a folder: files, and folders that are one checkpoint each.

    Links that lead nowhere are left out, and links to another file in the folder, such as
    ``last.ckpt``.
    """
    paths = {path.name: path for path in folder.iterdir()}
    paths = {name: path for name, path in paths.items() if not _is_repeated(path, paths)}
    found = [paths[name] for name in weight_files(paths)]
    for name, path in paths.items():
        is_folder = name not in weight_files((name,)) and path.is_dir()
        if is_folder and ((path / INDEX).exists() or _is_step_folder(name)):
            found += [path] if is_checkpoint_folder(path) else []
    return found


def weight_files(names: Iterable[str]) -> list[str]:
    """Select the names of files with weights, one for each model.

    Side files are left out. Of the shards of one model, the first is kept. Of one model that
    Hugging Face saved in two formats, the preferred one is kept.

    Example:
        >>> weight_files(["optimizer.pt", "m-00002-of-00002.bin", "m-00001-of-00002.bin", "a.pt"])
        ['a.pt', 'm-00001-of-00002.bin']
    """
    models: dict[tuple[str, ...], str] = {}
    for name in sorted(names):
        if name.endswith(CHECKPOINT_SUFFIXES) and not _SIDE_FILES.fullmatch(name):
            models.setdefault(_shard_set(name) or (name,), name)
    kept = list(models.values())
    for better, other in zip(_WHOLE[::2], _WHOLE[1::2], strict=True):
        if any(_unsharded(name) == better for name in kept):
            kept = [name for name in kept if _unsharded(name) != other]
    return kept


def distinct_checkpoints(paths: Iterable[Folder]) -> list[Folder]:
    """Leave out side files, and all shards of a model but the first that is named.

    If all paths are side files, all are kept. Folders, and names that do not exist, are kept.
    """
    seen: set[tuple[Folder, str]] = set()
    kept: list[Folder] = []
    sides: list[Folder] = []
    for path in paths:
        name = path.name.removesuffix(_INDEX_SUFFIX)
        if name == path.name and _SIDE_FILES.fullmatch(name) and path.is_file():
            sides.append(path)
            continue
        model = path.parent, _unsharded(name)
        if model not in seen or (model[1], name) == (path.name, path.name):
            kept.append(path)
        seen.add(model)
    return kept or sides


def explain_folder(folder: Folder) -> str | None:
    """Say what a folder without a checkpoint is, and what to do; None if that is not known."""
    names = {path.name for path in folder.iterdir()}
    if {"data.pkl", "data"} <= names:
        return "an unpacked file of torch.save; pack it again without compression: zip -0 -r"
    if "saved_model.pb" in names:
        return "a SavedModel of TensorFlow; save its weights with torch.save or safetensors"
    inside = [name for name in sorted(names) if (folder / name).is_dir()]
    full = [name for name in inside if _holds_checkpoints(folder / name)]
    if full:
        return f"it has checkpoints in its subfolders, {_listed(full)}; name one of them"
    side_files = sorted(name for name in names if _SIDE_FILES.fullmatch(name) and name[0] != ".")
    if side_files:
        return f"it has side files, {_listed(side_files)}, but no weights"
    return None


def why_missing(path: Folder) -> str:
    """Say why a file or folder does not exist."""
    if not isinstance(path, Path):
        return "the file or folder does not exist, or its server cannot be reached"
    if not path.is_symlink():
        return "the file or folder does not exist"
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads back to itself"
    return f"a link to {quoted(str(path.readlink()))}, which does not exist"


def _is_repeated(path: Folder, paths: Mapping[str, Folder]) -> bool:
    """Whether a path is a link that leads nowhere, or to another one of the paths."""
    if not isinstance(path, Path) or not path.is_symlink():
        return False
    if not path.exists():
        return True
    target = path.resolve()
    return target.parent == path.parent.resolve() and target.name in paths


def _holds_checkpoints(folder: Folder) -> bool:
    try:
        is_run = any((folder / name).is_dir() for name in SUBFOLDERS)
        return is_run or is_checkpoint_folder(folder) or bool(checkpoints_in(folder))
    except OSError:  # it cannot be read
        return False


def _files_of_folder(folder: Folder) -> list[Folder]:
    names = {path.name for path in folder.iterdir()}
    states = _model_states(names)
    if states:
        return [folder / _only_whole(states)]
    found = weight_files(names)
    if len(found) == 1:
        return files_of(folder / found[0])
    if found:
        raise ValueError(
            f"a folder with {len(found)} checkpoints: {_listed(found)}; name one of them"
        )
    inner = [name for name in _fsdp(names) if (folder / name / INDEX).exists()]
    inner = inner or _deepspeed_folders(folder, names)
    if len(inner) == 1:
        path = folder / inner[0]
        return [path] if (path / INDEX).exists() else _files_of_folder(path)
    raise ValueError(explain_folder(folder) or "a folder without a checkpoint; name a file")


def _files_of_index(index: Folder) -> list[Folder]:
    """List the shards that an index of Hugging Face names."""
    content = read_whole(index, _LARGEST_INDEX)
    try:
        if content.count(b"[") + content.count(b"{") > _MOST_BRACKETS:
            raise ValueError("it would take much memory")
        files: Any = json.loads(content)["weight_map"].values()
        names = sorted({name for name in files if isinstance(name, str)})
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            "expected an index of shards with the key 'weight_map'; found another JSON file"
        ) from error
    for name in names:
        if "/" in name or "\\" in name or name in ("", "..", "."):
            raise ValueError(f"it names a file outside the folder, {quoted(name)}")
    return _existing(index.parent, names)


def _shards_of(path: Folder) -> list[Folder]:
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    name, number, total, suffix = match.groups()
    index = path.parent / f"{name}{suffix}{_INDEX_SUFFIX}"
    if index.exists():
        return _files_of_index(index)
    width, first = len(total), f"{name}-{'0' * len(number)}-of-{total}{suffix}"
    start = 0 if (path.parent / first).exists() else 1
    numbers = range(start, start + int(total))
    return _existing(path.parent, [f"{name}-{n:0{width}d}-of-{total}{suffix}" for n in numbers])


def _existing(folder: Folder, names: list[str]) -> list[Folder]:
    present = {path.name for path in folder.iterdir()}
    missing = [name for name in names if name not in present]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(names)} files of this model are missing: "
            f"{_listed(missing)}; copy them into its folder"
        )
    return [folder / name for name in names]


def _shard_set(name: str) -> tuple[str, ...] | None:
    match = _SHARD.fullmatch(name)
    return None if match is None else (match[1], match[3], match[4])


def _unsharded(name: str) -> str:
    match = _SHARD.fullmatch(name)
    return name if match is None else f"{match[1]}{match[4]}"


def _is_step_folder(name: str) -> bool:
    return bool(_STEP_FOLDER.fullmatch(name)) and not name.endswith(CHECKPOINT_SUFFIXES)


def _fsdp(names: Iterable[str]) -> list[str]:
    """Return the names of folders in which accelerate saves a sharded model."""
    return [name for name in names if name.startswith("pytorch_model_fsdp")]


def _model_states(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if _DEEPSPEED.fullmatch(name))


def _deepspeed_folders(folder: Folder, names: set[str]) -> list[str]:
    """Return the subfolders in which DeepSpeed has saved a model, if the folder is its own."""
    if "latest" not in names:
        return []
    return [
        name
        for name in sorted(names)
        if (folder / name).is_dir() and _model_states(p.name for p in (folder / name).iterdir())
    ]


def _only_whole(states: list[str]) -> str:
    if len(states) == 1 and not states[0].startswith("zero_pp_rank"):
        return states[0]
    raise ValueError(
        f"DeepSpeed has split the weights into {len(states)} files, such as {states[0]}; join them "
        "with the zero_to_fp32.py that DeepSpeed has put beside them"
    )


def _listed(names: list[str]) -> str:
    more = ", ..." if len(names) > _MOST_LISTED else ""
    return ", ".join(quoted(name)[1:-1] for name in names[:_MOST_LISTED]) + more
