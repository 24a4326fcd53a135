"""The identity of a recording."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Attempt:
    """One recording of a training: from the start of the training, or from a checkpoint on.

    Attributes:
        training: Identity of the training. All attempts of a training share it.
        number: Time at which the attempt began, in milliseconds since 1970. The numbers of the
            attempts of one training increase, even where a clock is wrong.
    """

    training: str
    number: int
