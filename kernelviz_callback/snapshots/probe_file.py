"""The probe of a run, in its folder."""

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors, save as to_safetensors

from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.format import read_metadata
from kernelviz_callback.storage import Location, as_folder, write_whole

_PROBE_NAME = "probe.safetensors"


def save_probe(probe: Probe, folder: Location) -> None:
    """Write the exact probe of a run into its folder, as ``probe.safetensors``.

    The tensor ``probe`` is (C, H, W): uint8 where every value is a whole 255th, else float32. If
    the run had another probe before, that one is kept and this is ``probe-<digest>.safetensors``,
    with the first eight digits.

    Raises:
        OSError: If it cannot be written.
    """
    folder = as_folder(folder)
    known = load_saved_probe(folder)
    if known is not None and known.digest != probe.digest:
        path = folder / f"probe-{probe.digest[:8]}.safetensors"
    else:
        path = folder / _PROBE_NAME
    levels = (probe.image * 255).round().clamp(0, 255).to(torch.uint8)
    exact = levels if torch.equal(levels.float() / 255, probe.image) else probe.image
    content = to_safetensors({"probe": exact}, {"name": probe.name, "digest": probe.digest})
    write_whole(path, content)


def load_saved_probe(folder: Location, digest: str | None = None) -> Probe | None:
    """Read a probe of a run back, or None if the folder has no readable one.

    Args:
        folder: Of the run.
        digest: `Snapshot.probe_digest`, where a run had more than one; None for its first.
    """
    folder = as_folder(folder)
    names = [_PROBE_NAME] + ([f"probe-{digest[:8]}.safetensors"] if digest else [])
    for name in names:
        try:
            content = (folder / name).read_bytes()
            image = from_safetensors(content)["probe"]
        except (OSError, SafetensorError, KeyError):
            continue
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        probe = Probe(image, read_metadata(content).get("name", "image"))
        if digest in (None, probe.digest):
            return probe
    return None
