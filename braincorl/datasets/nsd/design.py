"""What the design tables of the Natural Scenes Dataset (NSD) say: which trial showed which stimulus.

The tables count from 1: trial t (from 0) of subject s (from 1) showed the stimulus
`subjectim[s - 1, masterordering[t] - 1] - 1`, a row (from 0) of `nsd_stimuli.hdf5`. That number is an image's name
here, as it is the name that `braincorl embed nsd_stimuli.hdf5` gives.

References
----------
Allen et al., A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence, Nature
Neuroscience 25 (2022). Conventions follow the data manual of NSD and public code that reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl.datasets.betas.matlab import read_mat
from braincorl.datasets.nsd.layout import N_SESSIONS, N_STIMULI, TRIALS_PER_SESSION, check_subject
from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import check_regular, reading

TABLES = ("masterordering", "subjectim")


@dataclass(frozen=True)
class Design:
    """What every trial of every subject showed.

    Attributes
    ----------
    order
        For each trial, which of a subject's 10,000 images, from 0 (n_trials,).
    images
        For each subject and image, the row of the stimulus file, from 0 (8, 10000).
    """

    order: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]

    def shown(self, subject: int) -> npt.NDArray[np.int64]:
        """Stimulus of every trial of a subject (1 to 8), from 0 (n_trials,)."""
        return np.asarray(self.images[subject - 1, self.order])


def read_design(path: Path) -> Design:
    """Read `nsd_expdesign.mat`.

    Raises
    ------
    InputError
        If it is missing.
    FileFormatError
        If it is no such file, or its numbers cannot be those of NSD.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: it says which image each trial showed; download it.")
    content = read_mat(path, TABLES)
    lacking = [name for name in TABLES if name not in content]
    if lacking:
        raise FileFormatError(f"{path} holds no '{lacking[0]}': it is not NSD's design file.")
    order, images = (_whole_numbers(content[name], name, path) for name in TABLES)
    order = order.ravel()
    if images.ndim != 2 or images.shape[0] != len(N_SESSIONS):
        raise FileFormatError(f"{path}: subjectim has shape {images.shape}, expected (8, 10000).")
    if order.size == 0 or order.min() < 1 or order.max() > images.shape[1]:
        raise FileFormatError(
            f"{path}: masterordering must count a subject's images from 1 to {images.shape[1]}; "
            "these numbers seem to be of another file, or counted from 0."
        )
    if images.min() < 1 or images.max() > N_STIMULI:
        raise FileFormatError(f"{path}: subjectim must count the stimuli from 1 to {N_STIMULI}, which it does not.")
    return Design(order - 1, images - 1)


def _whole_numbers(values: npt.NDArray[Any], name: str, path: Path) -> npt.NDArray[np.int64]:
    if values.dtype.kind == "f" and not (np.abs(values) < 2**31).all():
        raise FileFormatError(f"{path}: '{name}' holds numbers that count nothing, such as {values.max():g}.")
    whole: npt.NDArray[np.int64] = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise FileFormatError(f"{path}: '{name}' must hold whole numbers.")
    return whole


def read_stimuli(path: Path) -> pd.DataFrame:
    """Read `nsd_stim_info_merged.csv`: columns nsdId (from 0), shared1000, and subject{s}_rep{r}.

    Raises
    ------
    InputError
        If it is missing.
    FileFormatError
        If it lacks a column.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: it says which images the subjects share; download it.")
    check_regular(path, "table of stimuli")
    repeats = [f"subject{s}_rep{r}" for s in range(1, 9) for r in range(3)]
    with reading(path, "is not NSD's table of stimuli"):
        table = pd.read_csv(path, usecols=["nsdId", "shared1000", *repeats])
        return table.astype({"shared1000": bool, "nsdId": np.int64, **dict.fromkeys(repeats, np.int64)})


def check_design_against_stimuli(shown: npt.NDArray[np.int64], table: pd.DataFrame, subject: int, path: Path) -> None:
    """Refuse a design that the table of stimuli contradicts, as when it belongs to another subject.

    Parameters
    ----------
    shown
        Stimulus of each trial, from 0 (n_trials,).
    table
        Of `read_stimuli`; its repeat columns count trials from 1, and 0 means not shown.
    subject
        1 to 8.
    path
        The design file, for messages.

    Raises
    ------
    InputError
        If any trial disagrees.
    """
    expected = np.full(shown.size, -1, dtype=np.int64)
    for repeat in range(3):
        trial = table[f"subject{subject}_rep{repeat}"].to_numpy(dtype=np.int64)
        inside = (trial >= 1) & (trial <= shown.size)
        expected[trial[inside] - 1] = table["nsdId"].to_numpy(dtype=np.int64)[inside]
    wrong = np.flatnonzero((expected >= 0) & (expected != shown))
    if wrong.size:
        raise InputError(
            f"{path} and nsd_stim_info_merged.csv disagree on {wrong.size} of subject {subject}'s {shown.size} trials "
            f"(trial {wrong[0] + 1}: stimulus {shown[wrong[0]]} or {expected[wrong[0]]}): one of them belongs to "
            "another subject or release; download both again."
        )


def shared_images(table: pd.DataFrame, subjects: Sequence[int], min_repeats: int) -> npt.NDArray[np.int64]:
    """Stimuli that all the subjects saw often enough in the sessions that they completed, from 0, ascending.

    Raises
    ------
    InputError
        If `min_repeats` is not 1, 2 or 3, or a subject is not 1 to 8.
    """
    if min_repeats not in (1, 2, 3):
        raise InputError(f"min_repeats must be 1, 2 or 3, but is {min_repeats}.")
    seen = np.ones(len(table), dtype=bool)
    for subject in subjects:
        check_subject(subject)
        trials = table[[f"subject{subject}_rep{repeat}" for repeat in range(3)]].to_numpy(dtype=np.int64)
        completed = N_SESSIONS[subject - 1] * TRIALS_PER_SESSION
        seen &= ((trials >= 1) & (trials <= completed)).sum(axis=1) >= min_repeats
    return np.sort(table["nsdId"].to_numpy(dtype=np.int64)[seen])
