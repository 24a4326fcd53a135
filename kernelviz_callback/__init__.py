"""See a network's first layer learn.

``Trainer(callbacks=[KernelVizCallback()])`` pictures the kernels of the first convolution, and
their responses to one fixed probe image, at the start of training and at each epoch end.

The public names are loaded when they are first used, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernelviz_callback.callback import KernelVizCallback
    from kernelviz_callback.chart import make_chart
    from kernelviz_callback.comparing.compare import compare
    from kernelviz_callback.comparing.comparison import Column, Comparison, Likeness
    from kernelviz_callback.comparing.picture import comparison_picture
    from kernelviz_callback.curves import frequency_gain
    from kernelviz_callback.destinations.choice import register_logger
    from kernelviz_callback.examination import kernel_health
    from kernelviz_callback.filters import (
        Geometry,
        effective_weight,
        find_convolutions,
        geometry_of,
    )
    from kernelviz_callback.grid import gain_grid, kernel_grid, response_grid
    from kernelviz_callback.health import FilterMeasures, KernelHealth, LayerMeasures
    from kernelviz_callback.opening.checkpoint import Checkpoint, load_weights, open_checkpoint
    from kernelviz_callback.opening.sources import find_checkpoints
    from kernelviz_callback.picture import EncodedImage, Picture
    from kernelviz_callback.principal import PrincipalPlanes, principal_planes
    from kernelviz_callback.probe import Probe, load_probe
    from kernelviz_callback.probe_energy import ProbeEnergy, measure_probe
    from kernelviz_callback.responses import channel_responses, summed_responses
    from kernelviz_callback.running import FeatureMap, FeatureMaps, feature_maps
    from kernelviz_callback.showing import checkpoint_pictures
    from kernelviz_callback.snapshot import Snapshot, list_snapshots, load_snapshot, save_snapshot
    from kernelviz_callback.verdicts import Verdict
    from kernelviz_callback.watcher import KernelWatcher

__version__ = "1.0.0"

_HOME = {
    "KernelVizCallback": "callback",
    "KernelWatcher": "watcher",
    "make_chart": "chart",
    "frequency_gain": "curves",
    "compare": "comparing.compare",
    "Column": "comparing.comparison",
    "Comparison": "comparing.comparison",
    "Likeness": "comparing.comparison",
    "comparison_picture": "comparing.picture",
    "Checkpoint": "opening.checkpoint",
    "load_weights": "opening.checkpoint",
    "open_checkpoint": "opening.checkpoint",
    "find_checkpoints": "opening.sources",
    "checkpoint_pictures": "showing",
    "FeatureMap": "running",
    "FeatureMaps": "running",
    "feature_maps": "running",
    "Geometry": "filters",
    "effective_weight": "filters",
    "find_convolutions": "filters",
    "geometry_of": "filters",
    "FilterMeasures": "health",
    "KernelHealth": "health",
    "LayerMeasures": "health",
    "Verdict": "verdicts",
    "kernel_health": "examination",
    "register_logger": "destinations.choice",
    "ProbeEnergy": "probe_energy",
    "measure_probe": "probe_energy",
    "EncodedImage": "picture",
    "Picture": "picture",
    "gain_grid": "grid",
    "kernel_grid": "grid",
    "response_grid": "grid",
    "PrincipalPlanes": "principal",
    "principal_planes": "principal",
    "Probe": "probe",
    "load_probe": "probe",
    "channel_responses": "responses",
    "summed_responses": "responses",
    "Snapshot": "snapshot",
    "list_snapshots": "snapshot",
    "load_snapshot": "snapshot",
    "save_snapshot": "snapshot",
}

__all__ = [
    "Checkpoint",
    "Column",
    "Comparison",
    "EncodedImage",
    "FeatureMap",
    "FeatureMaps",
    "FilterMeasures",
    "Geometry",
    "KernelHealth",
    "KernelVizCallback",
    "KernelWatcher",
    "LayerMeasures",
    "Likeness",
    "Picture",
    "PrincipalPlanes",
    "Probe",
    "ProbeEnergy",
    "Snapshot",
    "Verdict",
    "channel_responses",
    "checkpoint_pictures",
    "compare",
    "comparison_picture",
    "effective_weight",
    "feature_maps",
    "find_checkpoints",
    "find_convolutions",
    "frequency_gain",
    "gain_grid",
    "geometry_of",
    "kernel_grid",
    "kernel_health",
    "list_snapshots",
    "load_probe",
    "load_snapshot",
    "load_weights",
    "make_chart",
    "measure_probe",
    "open_checkpoint",
    "principal_planes",
    "register_logger",
    "response_grid",
    "save_snapshot",
    "summed_responses",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
