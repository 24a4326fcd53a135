"""Small files whose reading would take minutes or gigabytes, if their values were used unchecked.

    python tests/bombs.py FILE ...

The script shows each file, and compares it with itself if it can be shown, with limits on memory
and processor time. It prints one line of JSON for each: the exit status of each command, the lines
on stderr, and the seconds of the processor.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from index_bombs import INDEXES, NO_FILES
from pickle_bombs import PICKLES, Maker
from safetensors_bombs import SAFETENSORS, layer

SECONDS = 200  # of the processor, for all files, before the process is killed
MEMORY = 300 << 20  # bytes above those of an interpreter that has read a usual file

BOMBS: dict[str, Maker] = PICKLES | INDEXES | SAFETENSORS | NO_FILES


def limit() -> None:
    """Let this process end if it takes too long, and let an allocation fail if it is too large."""
    import resource  # Windows does not have it, and imports this module all the same

    status = Path("/proc/self/status").read_text()
    taken = int(status.partition("VmData:")[2].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (taken + MEMORY, taken + MEMORY))
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, used + SECONDS))


def read(path: str) -> dict[str, Any]:
    from kernelviz_callback.cli import main

    began, status, errors = time.process_time(), [], io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        status.append(main(["show", path, "-o", "shown.png"]))
        if status[0] == 0:
            status.append(main(["compare", path, path, "-o", "compared.png"]))
    seconds = round(time.process_time() - began, 2)
    return {"status": status, "lines": errors.getvalue().splitlines(), "seconds": seconds}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        usual = Path(folder) / "usual.safetensors"
        layer(4, 3, 5, 5)(usual)
        assert read(str(usual))["status"] == [0, 0]  # imports what reading needs
    limit()
    for each in sys.argv[1:]:
        print(json.dumps(read(each)), flush=True)
