"""Limits for the time and the memory that reading the pickles of a file may take."""

_MOST_INSTRUCTIONS = 1_000_000  # a second of work; the checkpoint of a large network has 50,000
_MOST_BYTES = 128 << 20  # of strings and numbers; the checkpoint of a large network has 5 MB


class RefusedError(ValueError):
    """An error whose message is shown as it is: reading the file costs too much, or does harm."""


class Budget:
    """What reading the pickles of one file may cost. All of them share it.

    Attributes:
        instructions: Number of instructions that may still be executed.
        size: Number of bytes that strings, bytes and large numbers may still take.
    """

    def __init__(self) -> None:
        self.instructions = _MOST_INSTRUCTIONS
        self.size = _MOST_BYTES

    def spend(self, size: int) -> None:
        """Take bytes from the budget.

        Raises:
            RefusedError: If it does not have so many.
        """
        if size > self.size:
            raise RefusedError(
                f"its pickle has more than {_MOST_BYTES >> 20} MiB of data besides its tensors; "
                "save the state_dict() alone"
            )
        self.size -= size

    def too_many_instructions(self) -> RefusedError:
        """Make the error for a pickle that goes on when no instruction is left."""
        return RefusedError(
            f"its pickle has more than {_MOST_INSTRUCTIONS:,} instructions; save the state_dict() "
            "alone"
        )
