"""What a checkpoint carries of the observer, and what changed since."""

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from kernelviz_callback.probe.probe import Probe
from kernelviz_callback.training.run_lock import LastClaim


@dataclass(frozen=True)
class RunState:
    """The part of a run that a resumed training goes on with.

    Attributes:
        layers: Name to the shape (N, C, kH, kW) of the watched layers.
        probe_digest: `Probe.digest`.
        batch_source: "train_batch" or "val_batch" where the probe is an image of the data.
        batch_probe: That image, shape (C, H, W).
        run_scales: See `Recorder`.
        run: Identity of the training, see `Claim`. None on other processes than rank zero.
        attempt: Number of the attempt, likewise; 0 there.
    """

    layers: dict[str, list[int]] = field(default_factory=dict)
    probe_digest: str | None = None
    batch_source: str | None = None
    batch_probe: Tensor | None = None
    run_scales: dict[str, float] = field(default_factory=dict)
    run: str | None = None
    attempt: int = 0

    @property
    def last_claim(self) -> LastClaim:
        """What the run folder is claimed with again."""
        return LastClaim(self.run, self.attempt)

    def to_dict(self) -> dict[str, Any]:
        """The fields as values that a ``weights_only`` checkpoint may hold; none if empty."""
        return asdict(self) if self.layers else {}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "RunState":
        """Rebuild from `to_dict`; unknown fields are of another version and left aside."""
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields})

    def changes(self, layers: dict[str, list[int]], probe: Probe) -> list[str]:
        """What a user should know when the training goes on with these layers and this probe."""
        if not self.layers:
            return []
        said = []
        if self.layers != layers:
            said.append(
                f"the watched layers changed since the checkpoint: they were {self.layers}, are "
                f"{layers}"
            )
        if self.probe_digest != probe.digest:
            said.append(
                f"the probe changed since the checkpoint (it is now {probe.name}): responses "
                "before and after cannot be compared"
            )
        return said
