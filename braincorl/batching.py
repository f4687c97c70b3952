"""One bound on the memory of temporaries, and cutting many voxels, images or trials into batches that keep to it.

`BRAINCORL_MEMORY` ("500 MB", "4 GiB") sets it; 1 GiB by default. Most batches take a sixteenth of it, since larger ones
are no faster. It changes no result. What is asked for in the end (the responses, the maps) comes on top, and networks
on a device go by what is free there (`braincorl.models.hardware`).
"""

import os
import re
from collections.abc import Iterator

from braincorl.errors import InputError

VARIABLE = "BRAINCORL_MEMORY"
# Small beside any laptop's memory; more was no faster anywhere.
_DEFAULT = "1 GiB"
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
# Large enough for matrix products at full speed, small enough to leave room for what is not counted.
_BATCH_SHARE = 1 / 16
# Fewer voxels or images would starve the matrix products, whatever they take.
_FEWEST = 64


def working_memory() -> int:
    """Bytes that temporaries may take together.

    Raises
    ------
    InputError
        If `BRAINCORL_MEMORY` is no size.
    """
    text = os.environ.get(VARIABLE) or _DEFAULT
    found = re.fullmatch(r"([\d.]+)\s*([kmgt]i?)?b?", text.strip().lower())
    try:
        size = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    except ValueError:
        size = 0
    if size < 1:
        raise InputError(f"{VARIABLE} is {text!r}, expected a size such as '500 MB' or '4 GiB'.")
    return size


def at_a_time(bytes_each: int, share: float = _BATCH_SHARE) -> int:
    """How many voxels, images or trials make a batch: one at least.

    Parameters
    ----------
    bytes_each
        Size of the temporaries of one.
    share
        Of `working_memory`.
    """
    return max(1, int(share * working_memory()) // max(bytes_each, 1))


def batches(n: int, bytes_each: int, size: int | str = "auto") -> Iterator[slice]:
    """Cut voxels, or images, into batches of bounded temporaries.

    Parameters
    ----------
    n
        How many there are in all.
    bytes_each
        Size of the temporaries of one, in bytes.
    size
        How many make a batch, or "auto" for as many as `at_a_time` says, but no fewer than 64.

    Yields
    ------
    slice
        Consecutive ranges.
    """
    step = max(_FEWEST, at_a_time(bytes_each)) if isinstance(size, str) else size
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
