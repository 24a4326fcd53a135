"""Limits for the time and the memory that reading the pickles of a file may take."""

# What any file may cost. The checkpoint of a large network has 50,000 instructions and 5 MB.
_INSTRUCTIONS = 1_000_000  # half a second of work
_MEMORY = 64 << 20  # bytes
# What a pickle may cost besides, as it may hold much that is not weights. A word of a vocabulary
# has 15 bytes in a file or more, takes three instructions to read and 200 bytes of memory.
_BYTES_OF_INSTRUCTION = 4
_MEMORY_OF_BYTE = 16


class RefusedError(ValueError):
    """An error whose message is shown as it is: reading the file costs too much, or does harm."""


class Budget:
    """What reading the pickles of one file may cost. All of them share it.

    Attributes:
        instructions: Number of instructions that may still be executed.
        memory: Number of bytes that the objects of the pickles may still take.

    Args:
        size: Number of bytes of the pickles, as far as it is known. A large pickle may cost more.
    """

    def __init__(self, size: int = 0) -> None:
        self.instructions = self._most_instructions = _INSTRUCTIONS + size // _BYTES_OF_INSTRUCTION
        self.memory = self._most_memory = _MEMORY + size * _MEMORY_OF_BYTE

    def spend(self, memory: int) -> None:
        """Take bytes of memory from the budget.

        Raises:
            RefusedError: If it does not have so many.
        """
        if memory > self.memory:
            raise RefusedError(
                f"its pickle asks for more than {self._most_memory >> 20:,} MiB besides tensors; "
                "save the state_dict() alone"
            )
        self.memory -= memory

    def too_many_instructions(self) -> RefusedError:
        """Make the error for a pickle that goes on when no instruction is left."""
        return RefusedError(
            f"its pickle has more than {self._most_instructions:,} instructions; save the "
            "state_dict() alone"
        )
