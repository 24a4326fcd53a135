"""The public names of the package, and the module where each lives."""

from .checkpoints.checkpoint import (
    Checkpoint as Checkpoint,
    load_weights as load_weights,
    open_checkpoint as open_checkpoint,
)
from .checkpoints.find import find_checkpoints as find_checkpoints
from .checkpoints.pictures import checkpoint_pictures as checkpoint_pictures
from .comparison.compare import compare as compare
from .comparison.comparison import (
    Column as Column,
    Comparison as Comparison,
    Likeness as Likeness,
    comparison_picture as comparison_picture,
)
from .drawing.encode import EncodedImage as EncodedImage
from .drawing.grid import (
    gain_grid as gain_grid,
    kernel_grid as kernel_grid,
    response_grid as response_grid,
)
from .drawing.picture import Picture as Picture
from .filters.frequency import frequency_gain as frequency_gain
from .filters.principal import (
    PrincipalPlanes as PrincipalPlanes,
    principal_planes as principal_planes,
)
from .filters.responses import (
    channel_responses as channel_responses,
    summed_responses as summed_responses,
)
from .health.examine import kernel_health as kernel_health
from .health.kernel_health import (
    FilterMeasures as FilterMeasures,
    KernelHealth as KernelHealth,
    LayerMeasures as LayerMeasures,
)
from .health.verdicts import Verdict as Verdict
from .model.convolutions import (
    Geometry as Geometry,
    find_convolutions as find_convolutions,
    geometry_of as geometry_of,
)
from .model.feature_maps import (
    FeatureMap as FeatureMap,
    FeatureMaps as FeatureMaps,
    feature_maps as feature_maps,
)
from .model.weights import effective_weight as effective_weight
from .probe.probe import Probe as Probe, load_probe as load_probe
from .probe.probe_chart import make_chart as make_chart
from .probe.probe_energy import ProbeEnergy as ProbeEnergy, measure_probe as measure_probe
from .snapshots.format import load_snapshot as load_snapshot, save_snapshot as save_snapshot
from .snapshots.names import list_snapshots as list_snapshots
from .snapshots.snapshot import Snapshot as Snapshot
from .training.callback import KernelVizCallback as KernelVizCallback
from .training.loggers.registry import register_logger as register_logger
from .training.watcher import KernelWatcher as KernelWatcher

__version__: str
