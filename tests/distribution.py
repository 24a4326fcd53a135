"""Whether `make dist` built what it should: the sdist and the wheel in dist/.

The sdist holds all that is tracked, so that its tests can run; the wheel holds the package and no
more. Whatever fails ends this with a traceback.
"""

import subprocess
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
WHEEL_BYTES = 500_000  # at most


def main() -> None:
    [sdist] = ROOT.glob("dist/*.tar.gz")
    [wheel] = ROOT.glob("dist/*.whl")
    [wheel_of_the_tree] = ROOT.glob("build/tree/*.whl")
    tracked = set(subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines())
    same("the sdist", in_sdist(sdist), {*tracked, "PKG-INFO"})
    package = {name for name in tracked if name.startswith("kernelviz_callback/")}
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    same("the wheel", in_wheel(wheel), package | {f"{info}/{name}" for name in about})
    same("the wheel of the tree", in_wheel(wheel_of_the_tree), in_wheel(wheel))
    assert wheel.read_bytes() == wheel_of_the_tree.read_bytes(), "they differ in some file"
    size = wheel.stat().st_size
    assert size <= WHEEL_BYTES, f"the wheel has {size:,} bytes, and may have {WHEEL_BYTES:,}"
    print(f"{wheel.name}: {size:,} bytes, {len(in_wheel(wheel))} files")
    print(f"{sdist.name}: {sdist.stat().st_size:,} bytes, {len(in_sdist(sdist))} files")


def in_sdist(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def in_wheel(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def same(what: str, found: set[str], expected: set[str]) -> None:
    assert found == expected, (
        f"{what} lacks {sorted(expected - found)} and should not have {sorted(found - expected)}"
    )


if __name__ == "__main__":
    main()
