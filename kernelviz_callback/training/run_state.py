"""What a checkpoint stores for the callback, and what has changed when a training resumes."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.snapshots.attempt import Attempt


@dataclass(frozen=True)
class RunState:
    """What a resumed training needs to continue its recording.

    Attributes:
        layers: Name of each watched layer to the shape of its weights, (N, C, kH, kW).
        probe_digest: `Probe.digest`.
        batch_source: "train_batch" or "val_batch" if the probe is an image of the data, else None.
        batch_probe: That image, shape (C, H, W).
        run_scales: Kind of picture to the end of its colour scale, see `Renderer`.
        attempt: The last attempt. None before the first snapshot, and on processes other than rank
            zero.
    """

    layers: dict[str, list[int]] = field(default_factory=dict)
    probe_digest: str | None = None
    batch_source: str | None = None
    batch_probe: Tensor | None = None
    run_scales: dict[str, float] = field(default_factory=dict)
    attempt: Attempt | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to values that a ``weights_only`` checkpoint may hold.

        Returns:
            A key for each attribute, except that the attempt's training is ``run`` and its number
            is ``attempt``. Empty if no layer was watched yet.
        """
        if not self.layers:
            return {}
        fields = asdict(replace(self, attempt=None))
        if self.attempt is None:
            return {**fields, "run": None, "attempt": 0}
        return {**fields, "run": self.attempt.training, "attempt": self.attempt.number}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "RunState":
        """Rebuild from the result of `to_dict`. Unknown keys, of another version, are ignored."""
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        training = fields.get("run")
        known["attempt"] = None if training is None else Attempt(training, fields.get("attempt", 0))
        return cls(**known)

    def changes(self, layers: dict[str, list[int]], probe: Probe) -> list[str]:
        """Describe how these layers and this probe differ from those before the resume.

        Returns:
            A sentence for each difference. Empty for a new training.
        """
        if not self.layers:
            return []
        changes = []
        if self.layers != layers:
            changes.append(
                f"the watched layers changed since the checkpoint: they were {self.layers}, are "
                f"{layers}"
            )
        if self.probe_digest != probe.digest:
            changes.append(
                f"the probe changed since the checkpoint (it is now {probe.name}): responses "
                "before and after cannot be compared"
            )
        return changes
