"""Reading ahead, and batches that fit: the loop between pictures and features.

Pictures are decoded by threads (Pillow lets go of the interpreter's lock) while the network runs. Every row of a
batch is independent of the others, so in float32 the size of a batch changes nothing but speed and memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError, OutOfMemoryError
from braincorl.features.backbones.backbone import Backbone, to_unit_length
from braincorl.validation import FloatArray, check_batch_size

# The share of free memory that a batch may take: other programs, and this one's pictures, need the rest.
MEMORY_SHARE = 0.25

Prepared = npt.NDArray[Any] | None


def choose_batch_size(batch_size: int | str, backbone: Backbone) -> int:
    """Choose as many images as fit into a quarter of the free memory, up to where more is not faster.

    Parameters
    ----------
    batch_size
        "auto", or the user's choice.
    backbone
        What runs.

    Returns
    -------
    int

    Raises
    ------
    InputError
        If the user's choice is impossible.
    """
    chosen = check_batch_size(batch_size, "batch_size")
    if chosen is not None:
        return chosen
    fitting = int(MEMORY_SHARE * backbone.free_bytes() / max(1, backbone.image_bytes))
    return max(1, min(backbone.max_batch, fitting))


def n_readers(workers: int | str) -> int:
    """Choose how many threads decode pictures.

    Raises
    ------
    InputError
        If the user's choice is impossible.
    """
    chosen = check_batch_size(workers, "workers")
    return min(16, os.cpu_count() or 1) if chosen is None else chosen


def read_ahead(
    read: Callable[[int], Prepared], rows: Iterable[int], window: int, workers: int
) -> Generator[Prepared, None, None]:
    """Read rows in order, up to `window` of them ahead, by `workers` threads.

    Parameters
    ----------
    read
        Row -> array.
    rows
        Which, in order.
    window
        At most this many arrays wait to be used.
    workers
        Number of threads.

    Yields
    ------
    array or None
        What `read` gave, row by row; an error of `read` is raised at its row.
    """
    remaining = iter(rows)
    with ThreadPoolExecutor(workers, thread_name_prefix="braincorl-read") as pool:
        waiting: deque[Future[Prepared]] = deque(pool.submit(read, row) for row in islice(remaining, window))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(read, row) for row in islice(remaining, 1))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def in_batches(prepared: Iterable[Prepared], batch_size: int) -> Iterator[list[Prepared]]:
    """Gather consecutive items into lists of `batch_size`, the last one shorter."""
    items = iter(prepared)
    while batch := list(islice(items, batch_size)):
        yield batch


def embed_batch(backbone: Backbone, batch: Sequence[Prepared], unit_norm: bool) -> FloatArray:
    """Features of a batch; rows of images that could not be read are NaN.

    Parameters
    ----------
    backbone
        What runs.
    batch
        Prepared arrays; None for an image that could not be read.
    unit_norm
        Bring every row to unit length.

    Returns
    -------
    ndarray of shape (n_images, n_features), float32

    Raises
    ------
    InputError
        If the arrays differ in size, or the backbone gives features that are not finite.
    OutOfMemoryError
        If not even one image fits into memory.
    """
    features = np.full((len(batch), backbone.n_features), np.nan, dtype=np.float32)
    readable = [row for row, array in enumerate(batch) if array is not None]
    if not readable:
        return features
    arrays = [array for array in batch if array is not None]
    if any(array.shape != arrays[0].shape for array in arrays):
        shapes = sorted({array.shape for array in arrays})[:2]
        raise InputError(f"the transform gives pictures of shapes {shapes[0]} and {shapes[1]}: it must give one size.")
    made = _forward_that_fits(backbone, np.stack(arrays))
    if not np.isfinite(made).all():
        raise InputError(
            f"the backbone gave NaN or infinity for {int((~np.isfinite(made).all(axis=1)).sum())} images: its weights "
            "are damaged, or need precision='float32'."
        )
    features[readable] = to_unit_length(made) if unit_norm else made
    return features


def _forward_that_fits(backbone: Backbone, arrays: npt.NDArray[Any]) -> FloatArray:
    """Run the backbone, on halves of the batch if the whole does not fit into memory."""
    try:
        return backbone.forward(arrays)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError):  # so PyTorch, which has several ways to say it, is imported already
            from braincorl.models.hardware import is_out_of_memory

            if not is_out_of_memory(error):
                raise
        if len(arrays) == 1:
            raise OutOfMemoryError(
                f"one image needs about {backbone.image_bytes / 2**20:.0f} MiB, which is not free: close other "
                "programs, or choose a smaller backbone."
            ) from error
    middle = len(arrays) // 2  # outside the handler, so that the failed run's memory is let go
    return np.concatenate([_forward_that_fits(backbone, half) for half in (arrays[:middle], arrays[middle:])])
