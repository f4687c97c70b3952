"""The same data given twice: told by the files themselves and by what is in them."""

import filecmp
import itertools
from collections.abc import Sequence
from pathlib import Path

from braincorl.errors import InputError

SAMPLE_BYTES = 4096  # one page of a disk
FEWEST_NUMBERS = 8  # fewer may agree by chance, as one trial of one voxel in whole numbers


def check_different(paths: Sequence[Path], name: str) -> None:
    """Refuse a file that is given twice, under its own name, another name, a link, or as a copy.

    Trials that are counted twice look like repeats of an image without any noise.

    Parameters
    ----------
    paths
        Files. Those of one size are compared as far as they agree.
    name
        Argument, for the message.

    Raises
    ------
    InputError
        Naming both.
    """
    twice = find_same(paths)
    if twice is not None:
        raise_same(*twice, name)


def find_same(paths: Sequence[Path]) -> tuple[Path, Path] | None:
    """Two files with the same content among several, or None; what is no regular file is left to its reader."""
    groups: dict[tuple[int, bytes], list[Path]] = {}
    for path in paths:
        if path.is_file():
            groups.setdefault(_sample(path), []).append(path)
    for alike in groups.values():
        for first, second in itertools.combinations(alike, 2):
            if first.samefile(second) or filecmp.cmp(first, second, shallow=False):
                return first, second
    return None


def _sample(path: Path) -> tuple[int, bytes]:
    """Size and some bytes from the middle, which differ between most files that differ."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(size // 2)
        return size, file.read(SAMPLE_BYTES)


def raise_same(first: Path, second: Path, name: str) -> None:
    """Say that two files hold the same data.

    Raises
    ------
    InputError
        Always.
    """
    same = f"{first} twice" if first == second else f"the same data in {first} and {second}"
    raise InputError(f"{name} holds {same}: repeats that are copies fake a noise ceiling of 1; pass each once.")
