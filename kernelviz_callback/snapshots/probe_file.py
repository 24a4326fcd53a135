"""The file of a probe, beside the snapshots in the run folder."""

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors, save as to_safetensors

from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.format import read_metadata
from kernelviz_callback.storage import Location, as_folder, read_whole, write_whole

_MOST_BYTES = 256 << 20  # of the file; a probe of 4096 x 4096 as float32 has 192 MiB
_PROBE_NAME = "probe.safetensors"


def save_probe(probe: Probe, folder: Location) -> None:
    """Write the exact probe of a training into its folder, as ``probe.safetensors``.

    The tensor ``probe`` has shape (C, H, W). It is uint8 if every value is a multiple of 1/255,
    else float32. If the folder has another probe already, that file is kept, and this probe is
    written as ``probe-<first eight digits of the digest>.safetensors``.

    Args:
        probe: The probe to write.
        folder: Path or URL of the folder of the snapshots.

    Raises:
        OSError: If the file cannot be written.
    """
    folder = as_folder(folder)
    known = load_saved_probe(folder)
    if known is not None and known.digest != probe.digest:
        path = folder / _other_probe_name(probe.digest)
    else:
        path = folder / _PROBE_NAME
    levels = (probe.image * 255).round().clamp(0, 255).to(torch.uint8)
    exact = levels if torch.equal(levels.float() / 255, probe.image) else probe.image
    content = to_safetensors({"probe": exact}, {"name": probe.name, "digest": probe.digest})
    write_whole(path, content)


def load_saved_probe(folder: Location, digest: str | None = None) -> Probe | None:
    """Read the probe of a training back.

    Args:
        folder: Path or URL of the folder of the snapshots.
        digest: `Snapshot.probe_digest`, if the training had more than one probe; None for the
            first probe.

    Returns:
        None if the folder has no such probe, or its file cannot be read.
    """
    folder = as_folder(folder)
    names = [_PROBE_NAME] + ([_other_probe_name(digest)] if digest else [])
    for name in names:
        try:
            content = read_whole(folder / name, _MOST_BYTES)
            image = from_safetensors(content)["probe"]
            image = image.float() / 255 if image.dtype == torch.uint8 else image
            probe = Probe(image, read_metadata(content).get("name", "image"))
            if digest in (None, probe.digest):
                return probe
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            continue
    return None


def _other_probe_name(digest: str) -> str:
    return f"probe-{digest[:8]}.safetensors"
