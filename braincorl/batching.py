"""Cutting many voxels, or images, into batches whose temporaries fit into a fixed part of the memory."""

from collections.abc import Iterator

# Temporaries of one batch: large enough for matrix products at full speed, small beside any laptop's memory.
BATCH_BYTES = 32 * 2**20


def batches(n: int, bytes_each: int, size: int | str = "auto", bytes_in_all: int = BATCH_BYTES) -> Iterator[slice]:
    """Cut voxels, or images, into batches of bounded temporaries.

    Parameters
    ----------
    n
        How many there are in all.
    bytes_each
        Size of the temporaries of one, in bytes.
    size
        How many make a batch, or "auto" for `bytes_in_all` of temporaries, but no fewer than 64.
    bytes_in_all
        Size of the temporaries of one batch.

    Yields
    ------
    slice
        Consecutive ranges.
    """
    if isinstance(size, str):
        size = max(64, bytes_in_all // max(bytes_each, 1))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
