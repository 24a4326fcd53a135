"""See a network's first layer learn.

``Trainer(callbacks=[KernelVizCallback()])`` pictures the kernels of the first convolution, and
their responses to one fixed probe image, at the start of training and at each epoch end.

The public names are loaded when they are first used, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernelviz_callback.checkpoints.checkpoint import Checkpoint, load_weights, open_checkpoint
    from kernelviz_callback.checkpoints.find import find_checkpoints
    from kernelviz_callback.checkpoints.pictures import checkpoint_pictures
    from kernelviz_callback.comparison.compare import compare
    from kernelviz_callback.comparison.comparison import Column, Comparison, Likeness
    from kernelviz_callback.comparison.strips import comparison_picture
    from kernelviz_callback.drawing.curves import frequency_gain
    from kernelviz_callback.drawing.grid import gain_grid, kernel_grid, response_grid
    from kernelviz_callback.drawing.picture import EncodedImage, Picture
    from kernelviz_callback.filters.principal import PrincipalPlanes, principal_planes
    from kernelviz_callback.filters.responses import channel_responses, summed_responses
    from kernelviz_callback.health.examine import kernel_health
    from kernelviz_callback.health.kernel_health import FilterMeasures, KernelHealth, LayerMeasures
    from kernelviz_callback.health.verdicts import Verdict
    from kernelviz_callback.model.convolutions import (
        Geometry,
        effective_weight,
        find_convolutions,
        geometry_of,
    )
    from kernelviz_callback.model.feature_maps import FeatureMap, FeatureMaps, feature_maps
    from kernelviz_callback.probe.probe import Probe, load_probe
    from kernelviz_callback.probe.probe_chart import make_chart
    from kernelviz_callback.probe.probe_energy import ProbeEnergy, measure_probe
    from kernelviz_callback.snapshots.snapshot import (
        Snapshot,
        list_snapshots,
        load_snapshot,
        save_snapshot,
    )
    from kernelviz_callback.training.callback import KernelVizCallback
    from kernelviz_callback.training.loggers.registry import register_logger
    from kernelviz_callback.training.watcher import KernelWatcher

__version__ = "1.0.0"

_HOME = {
    "KernelVizCallback": "training.callback",
    "KernelWatcher": "training.watcher",
    "make_chart": "probe.probe_chart",
    "frequency_gain": "drawing.curves",
    "compare": "comparison.compare",
    "Column": "comparison.comparison",
    "Comparison": "comparison.comparison",
    "Likeness": "comparison.comparison",
    "comparison_picture": "comparison.strips",
    "Checkpoint": "checkpoints.checkpoint",
    "load_weights": "checkpoints.checkpoint",
    "open_checkpoint": "checkpoints.checkpoint",
    "find_checkpoints": "checkpoints.find",
    "checkpoint_pictures": "checkpoints.pictures",
    "FeatureMap": "model.feature_maps",
    "FeatureMaps": "model.feature_maps",
    "feature_maps": "model.feature_maps",
    "Geometry": "model.convolutions",
    "effective_weight": "model.convolutions",
    "find_convolutions": "model.convolutions",
    "geometry_of": "model.convolutions",
    "FilterMeasures": "health.kernel_health",
    "KernelHealth": "health.kernel_health",
    "LayerMeasures": "health.kernel_health",
    "Verdict": "health.verdicts",
    "kernel_health": "health.examine",
    "register_logger": "training.loggers.registry",
    "ProbeEnergy": "probe.probe_energy",
    "measure_probe": "probe.probe_energy",
    "EncodedImage": "drawing.picture",
    "Picture": "drawing.picture",
    "gain_grid": "drawing.grid",
    "kernel_grid": "drawing.grid",
    "response_grid": "drawing.grid",
    "PrincipalPlanes": "filters.principal",
    "principal_planes": "filters.principal",
    "Probe": "probe.probe",
    "load_probe": "probe.probe",
    "channel_responses": "filters.responses",
    "summed_responses": "filters.responses",
    "Snapshot": "snapshots.snapshot",
    "list_snapshots": "snapshots.snapshot",
    "load_snapshot": "snapshots.snapshot",
    "save_snapshot": "snapshots.snapshot",
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
