"""Where a training begins to record: its folder, and what it finds of itself there."""

import contextlib
from dataclasses import dataclass, field

from kernelviz_callback.snapshots.format import load_snapshot
from kernelviz_callback.snapshots.names import list_snapshots, set_aside
from kernelviz_callback.snapshots.snapshot import Snapshot
from kernelviz_callback.storage import Folder, Location, write_whole
from kernelviz_callback.training.run_lock import Claim, LastClaim, claim_folder

_UNSURE = ".unsure"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a training that is about to record.

    Attributes:
        claim: The right to write there.
        set_aside: Steps of an attempt that was cut off, whose snapshots were moved out of the way.
        kept: Earlier snapshots of this training, in their order.
        has_first: Whether the first snapshot to come is among them.
        unsure: Those of them whose pictures the end of the last attempt may have lost.
    """

    claim: Claim
    set_aside: list[int] = field(default_factory=list)
    kept: list[Folder] = field(default_factory=list)
    has_first: bool = False
    unsure: list[Folder] = field(default_factory=list)

    def are_sure(self) -> None:
        """Note that no pictures of earlier snapshots are missing any more."""
        if self.unsure:
            (self.claim.folder / _UNSURE).unlink(missing_ok=True)


def open_run_folder(
    log_dir: Location, *, last: LastClaim, first: Snapshot, most_unsure: int
) -> RunFolder:
    """Claim the folder of a training: where this very one has recorded before, if it has.

    Args:
        log_dir: See `claim_folder`.
        last: What is known of the last attempt.
        first: The first snapshot to come. What lies there of later steps is set aside.
        most_unsure: Of how many snapshots, at most, a process that is killed loses the pictures.

    Raises:
        OSError: If nothing can be written there; it is as if nobody had tried, then.
    """
    claim = claim_folder(log_dir, run=last.run, after=last.attempt)
    if not claim.continues:
        return RunFolder(claim)
    try:
        moved = set_aside(claim.folder, after=first.step)
        kept = list_snapshots(claim.folder)
        return RunFolder(
            claim,
            set_aside=moved,
            kept=list(kept.values()),
            has_first=first.step in kept and _is_of_same_layers(kept[first.step], first),
            unsure=_unsure(claim.folder, kept, most_unsure) if claim.was_killed else [],
        )
    except BaseException:
        claim.release(finished=not claim.was_killed)
        raise


def _unsure(folder: Folder, kept: dict[int, Folder], most: int) -> list[Folder]:
    """The last ones, and those that the attempts before were about to log again.

    From which step on is written down before anything new is: however often the process is killed
    again, it is these that are logged again.
    """
    since = list(kept)[-most:][:1]
    with contextlib.suppress(OSError, ValueError):  # the attempt before had none, or logged them
        since.append(int((folder / _UNSURE).read_text()))
    unsure = [path for step, path in kept.items() if step >= min(since)]
    if unsure:
        write_whole(folder / _UNSURE, str(min(since)).encode())
    return unsure


def _is_of_same_layers(path: Folder, snapshot: Snapshot) -> bool:
    try:
        kept = load_snapshot(path)
    except (OSError, ValueError):
        return False
    return {n: w.shape for n, w in kept.weights.items()} == {
        n: w.shape for n, w in snapshot.weights.items()
    }
