"""Open damaged files and print the result for each. The tests run it as a script.

    python tests/hostile_files.py FOLDER SEED COUNT

``FOLDER`` holds undamaged checkpoints. Their layer ``conv`` has the weights in ``weights.pt``. The
script damages each checkpoint ``COUNT`` times. For each damage, it prints one line of JSON: the
file, the damage, the outcome (``right``, ``other`` or ``error``), the message and the seconds. The
last line has the growth of the peak memory.
"""

import faulthandler
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from kernelviz_callback.checkpoints.checkpoint import load_weights

SECONDS = 20  # limit for opening one file of some kilobytes
MEMORY = 512 << 20  # limit of the address space for it, in bytes
# Audit events of Python for code that executes, writes or imports something.
FORBIDDEN = (
    r"os\.(system|exec|posix_spawn|spawn|fork|forkpty|remove|rename|mkdir|rmdir|chmod|link|symlink)"
    r"|subprocess\..*|pickle\.find_class|socket\..*|ctypes\..*|shutil\..*|code\..*|exec|compile"
)
ZIP_SIGNATURES = (b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7")


def peak_memory() -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) << 10


def watch() -> None:
    """End this process if a file makes it hang, fill the memory or execute something."""
    import resource  # Windows does not have it, and imports this module all the same

    taken = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert taken
    limit = (int(taken[1]) << 10) + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    for encoding in ("cp437", "raw_unicode_escape", "unicode_escape", "latin-1"):
        b"a".decode(encoding)  # Python imports the codec at its first use

    faulthandler.register(signal.SIGALRM, chain=True)  # prints the stack, then ends the process

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and arguments[1] is not None and set("wax+") & set(arguments[1])
        if opening and (writes or re.fullmatch(FORBIDDEN, event)):
            print(f"executed {event} {arguments}", flush=True)
            faulthandler.dump_traceback()
            import os

            os._exit(3)

    sys.addaudithook(hook)


opening = False


def outcome(path: Path, weights: torch.Tensor) -> tuple[str, str]:
    global opening
    signal.alarm(SECONDS)
    opening = True
    try:
        read = load_weights(path, "conv")
        return ("right" if torch.equal(read, weights) else "other"), ""
    except (ValueError, OSError) as error:
        return "error", str(error)
    finally:
        opening = False
        signal.alarm(0)


Damage = Callable[[bytearray, random.Random], tuple[int, int]]


def flip(content: bytearray, rng: random.Random) -> tuple[int, int]:
    at = rng.randrange(len(content))
    content[at] ^= 1 << rng.randrange(8)
    return at, at + 1


def cut(content: bytearray, rng: random.Random) -> tuple[int, int]:
    end = len(content)
    del content[rng.randrange(len(content)) :]
    return len(content), end


def block(content: bytearray, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(content))
    return start, min(len(content), start + rng.choice((1, 2, 8, 64, 512)))


def insert(content: bytearray, rng: random.Random) -> tuple[int, int]:
    start, end = block(content, rng)
    content[start:start] = rng.randbytes(end - start)
    return start, len(content)


def delete(content: bytearray, rng: random.Random) -> tuple[int, int]:
    start, end = block(content, rng)
    del content[start:end]
    return start, len(content)


def duplicate(content: bytearray, rng: random.Random) -> tuple[int, int]:
    start, end = block(content, rng)
    content[start:start] = content[start:end]
    return start, len(content)


def swap(content: bytearray, rng: random.Random) -> tuple[int, int]:
    size = rng.choice((4, 64, 600))
    a, b = sorted(rng.randrange(max(1, len(content) - size)) for _ in range(2))
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]
    return a, b + size


def overwrite(content: bytearray, rng: random.Random) -> tuple[int, int]:
    start, end = block(content, rng)
    content[start:end] = rng.choice((b"\0", b"\xff", b"}", b"(")) * (end - start)
    return start, end


def directory(content: bytearray, rng: random.Random) -> tuple[int, int]:
    """Overwrite bytes after one of the signatures in a zip file."""
    places = [m.start() for s in ZIP_SIGNATURES for m in re.finditer(re.escape(s), content)]
    at = rng.choice(places or [0]) + rng.randrange(46)
    value = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", rng.randbytes(4), b"\xff\xff\xff\x7f"))
    content[at : at + 4] = value
    return at, at + 4


def pickled(content: bytearray, rng: random.Random) -> tuple[int, int]:
    """Replace an instruction of the pickle, or give it a large argument."""
    start = max(0, content.find(b"\x80\x02"))
    at = start + rng.randrange(600)
    value = rng.choice(
        (b"R", b"b", b"u", b"(", b"t", b".", b"Q", b"J\xff\xff\xff\x7f", b"\x81", b"0")
    )
    content[at : at + len(value)] = value
    return at, at + len(value)


DAMAGES: list[Damage] = [
    flip, flip, cut, insert, delete, duplicate, swap, overwrite, directory, pickled
]  # fmt: skip


def files(path: Path) -> list[Path]:
    return [p for p in path.iterdir() if p.is_file()] if path.is_dir() else [path]


def replace(path: Path, content: bytes | bytearray) -> None:
    path.unlink()  # overwriting a file would wait for the disk
    path.write_bytes(content)


def damaged(original: Path, rng: random.Random, scratch: Path) -> Iterator[dict[str, Any]]:
    """Damage a copy, yield the description of the damage, and repair the copy again."""
    copy = scratch / original.name
    (shutil.copytree if original.is_dir() else shutil.copy)(original, copy)
    while True:
        path = rng.choice(sorted(files(copy)))
        whole = path.read_bytes()
        content = bytearray(whole)
        damage = rng.choice(DAMAGES)
        start, end = damage(content, rng)
        replace(path, content)
        yield {
            "file": original.name,
            "part": path.name,
            "damage": damage.__name__,
            "at": [start, end],
            "moved": len(content) != len(whole),
            "opened": str(copy),
        }
        replace(path, whole)


def main(folder: Path, seed: int, count: int) -> None:
    weights = torch.load(folder / "weights.pt", weights_only=True)
    checkpoints = sorted(p for p in folder.iterdir() if p.name != "weights.pt")
    for path in checkpoints:  # imports what reading needs before imports are refused
        assert outcome(path, weights) == ("right", ""), path
    before = peak_memory()
    watch()
    for path in checkpoints:
        with tempfile.TemporaryDirectory() as scratch:
            rng = random.Random(f"{seed} {path.name}")
            damages = damaged(path, rng, Path(scratch))
            for _ in range(count):
                described = next(damages)
                began = time.monotonic()
                result, message = outcome(Path(described["opened"]), weights)
                described |= {"outcome": result, "message": message}
                print(json.dumps(described | {"seconds": time.monotonic() - began}), flush=True)
    print(json.dumps({"grown": peak_memory() - before}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
