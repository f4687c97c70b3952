"""Trials to one response per image, in one or two passes over the data.

Memory holds one row per distinct image, never the trials. With z-scoring the first pass takes each session's mean and
standard deviation, the second averages the scaled trials. The same pass collects the sums from which the noise ceiling
follows (`braincorl.metrics.ncsnr_from_sums`). All of it is done for each voxel by itself, so `average_block` serves
all voxels at once, straight from the files (`average_trials`), and block after block of them
(`braincorl.datasets.trials.preparing`), to the same last digit.
"""

import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from braincorl.batching import batches
from braincorl.datasets.betas.beta_files import BetasSource
from braincorl.datasets.trials.same import FEWEST_NUMBERS, raise_same
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.datasets.trials.zscoring import SessionMoments, SessionScaling
from braincorl.errors import InputError
from braincorl.metrics import ncsnr_from_sums
from braincorl.storage.files import Progress, ProgressCounter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageAverages:
    """One response per image, for every voxel of the mask.

    Attributes
    ----------
    responses
        Mean over each image's trials (n_images, n_mask_voxels), float32.
    image_ids
        (n_images,), in order of first appearance.
    n_repeats
        Trials of each image (n_images,).
    included
        Voxels that are finite in every trial and vary (n_mask_voxels,).
    ncsnr
        σ_s / σ_n of each voxel (n_mask_voxels,), or None if no image was repeated.
    """

    responses: npt.NDArray[np.float32]
    image_ids: npt.NDArray[np.str_]
    n_repeats: npt.NDArray[np.int64]
    included: npt.NDArray[np.bool_]
    ncsnr: npt.NDArray[np.float64] | None


def average_trials(
    sources: Sequence[BetasSource],
    tables: Sequence[TrialsTable],
    images: npt.NDArray[np.str_],
    *,
    zscore: bool,
    progress: Progress | None = None,
) -> ImageAverages:
    """Average the trials of each image.

    Parameters
    ----------
    sources
        Betas files, all with the same voxels.
    tables
        What each trial of each file showed.
    images
        Distinct images to keep (n_images,); trials of others count for z-scoring only.
    zscore
        Scale each voxel to mean 0 and standard deviation 1 over the trials of each session first.
    progress
        Called with (trials read, trials in all).

    Returns
    -------
    ImageAverages

    Raises
    ------
    InputError
        If a volume holds no response, or z-scoring meets a session of one trial.
    """
    total = sum(source.n_trials for source in sources) * (2 if zscore else 1)
    counter = ProgressCounter(total, progress)
    return average_block(lambda: _shown_trials(sources, tables, counter), images, sources[0].n_voxels, zscore=zscore)


Trials = Iterator[tuple[str, str, npt.NDArray[np.float32]]]
"""Image, session and responses (n_voxels,) of one trial after another; what is not finite is NaN."""


def average_block(
    trials: Callable[[], Trials], images: npt.NDArray[np.str_], n_voxels: int, *, zscore: bool
) -> ImageAverages:
    """Average the trials of each image, for some voxels.

    Parameters
    ----------
    trials
        Gives the trials that showed an image, in order, each time it is called: once, or twice with z-scoring.
    images
        Distinct images to keep (n_images,); trials of others count for z-scoring only.
    n_voxels
        Responses of a trial.
    zscore
        Scale each voxel to mean 0 and standard deviation 1 over the trials of each session first.

    Returns
    -------
    ImageAverages

    Raises
    ------
    InputError
        If z-scoring meets a session of one trial.
    """
    scaling = _session_scaling(trials()) if zscore else {}
    row_of = {image: row for row, image in enumerate(images.tolist())}
    sums = np.zeros((images.size, n_voxels), dtype=np.float32)
    squares, counts = np.zeros(n_voxels), np.zeros(images.size, dtype=np.int64)
    origin = np.zeros(0, dtype=np.float32)
    for image, session, values in trials():
        row = row_of.get(image)
        if row is None:
            continue
        if zscore:
            values = scaling[session].apply(values)
        origin = values.copy() if origin.size == 0 else origin
        _add(sums, counts, row, values, origin)
        squares += (values - origin).astype(np.float64) ** 2
    ncsnr = _ncsnr(squares, sums, counts, origin) if counts.max() > 1 and counts.size > 1 else None
    for repeated in np.flatnonzero(counts > 1):
        sums[repeated] = sums[repeated] / counts[repeated] + origin
    varies = np.ptp(sums, axis=0) > 0 if counts.size > 1 else True
    return ImageAverages(sums, images, counts, np.isfinite(squares) & varies, ncsnr)


def _add(
    sums: npt.NDArray[np.float32],
    counts: npt.NDArray[np.int64],
    row: int,
    values: npt.NDArray[np.float32],
    origin: npt.NDArray[np.float32],
) -> None:
    """Add one trial: an image's only trial as it is, several as distances from the first trial of all.

    So a single trial comes back to the last digit, a large baseline costs none, and a constant voxel stays constant.
    """
    if counts[row] == 0:
        sums[row] = values
    elif counts[row] == 1:
        sums[row] = (sums[row] - origin) + (values - origin)
    else:
        sums[row] += values - origin
    counts[row] += 1


def _shown_trials(sources: Sequence[BetasSource], tables: Sequence[TrialsTable], counter: ProgressCounter) -> Trials:
    """Read the trials of files.

    Trials that are those of an earlier file to the last digit are refused: a copy is no repeat.
    """
    read: dict[tuple[int, int], Path] = {}
    for source, table in zip(sources, tables, strict=True):
        checksum = 0
        for start, chunk in source.chunks():
            if len(sources) > 1:
                checksum = zlib.crc32(np.ascontiguousarray(chunk).view(np.uint8).data, checksum)
            refuse_empty(source, table, start, chunk)
            yield from shown(table, start, chunk)
            counter.add(len(chunk))
        if len(sources) > 1:
            earlier = read.setdefault((source.n_trials, checksum), source.path)
            if earlier != source.path and source.n_trials * source.n_voxels >= FEWEST_NUMBERS:
                raise_same(earlier, source.path, "betas")


def shown(table: TrialsTable, start: int, chunk: npt.NDArray[np.float32]) -> Trials:
    """Those trials of a chunk (n_trials, n_voxels), trial `start` of a file its first, that showed an image."""
    chunk[~np.isfinite(chunk)] = np.nan
    for trial, values in enumerate(chunk, start=start):
        if table.images[trial] != "":
            yield str(table.images[trial]), str(table.sessions[trial]), values


def refuse_empty(source: BetasSource, table: TrialsTable, start: int, chunk: npt.NDArray[np.float32]) -> None:
    """Refuse a volume that is said to be of an image but holds no response: no finite value, or 0 in all voxels.

    Raises
    ------
    InputError
        Naming it.
    """
    empty = ~np.isfinite(chunk).any(axis=1) & (table.images[start : start + len(chunk)] != "")
    if empty.any():
        raise InputError(
            f"{source.path}, volume {start + int(np.flatnonzero(empty)[0])} (counting from 0) holds no finite value "
            "in the mask: write n/a for its image in the trials table to leave it out."
        )
    blank = ~chunk.any(axis=1) & (table.images[start : start + len(chunk)] != "")
    if blank.any() and source.n_voxels > 1:
        raise InputError(
            f"{source.path}, volume {start + int(np.flatnonzero(blank)[0])} (counting from 0) is 0 in all voxels of "
            "the mask, which is no response: write n/a for its image in the trials table to leave it out."
        )


def _session_scaling(trials: Trials) -> dict[str, SessionScaling]:
    """Scaling of every session, over all of its trials."""
    moments: dict[str, SessionMoments] = {}
    for _, session, values in trials:
        if session not in moments:
            moments[session] = SessionMoments(values)
        moments[session].add(values[None])
    return {session: sums.scaling(session) for session, sums in moments.items()}


def _ncsnr(
    squares: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float32],
    counts: npt.NDArray[np.int64],
    origin: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    n_trials, single = int(counts.sum()), counts == 1
    ncsnr = np.empty(squares.size)
    for part in batches(squares.size, 3 * 8 * counts.size):  # a float64 copy of all sums would double the memory
        image_sums = sums[:, part].astype(np.float64)
        image_sums[single] -= origin[part]
        mean = image_sums.sum(axis=0) / n_trials
        centred_squares = np.maximum(squares[part] - n_trials * mean**2, 0.0)
        ncsnr[part] = ncsnr_from_sums(centred_squares, image_sums - counts[:, None] * mean, counts)
    return ncsnr
