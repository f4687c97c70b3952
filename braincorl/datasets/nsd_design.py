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

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from braincorl.datasets.nsd_files import N_SESSIONS, N_STIMULI, TRIALS_PER_SESSION, check_subject
from braincorl.errors import FileFormatError, InputError


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
    if not path.is_file():
        raise InputError(f"{path} does not exist: it says which image each trial showed; download it.")
    try:
        content = loadmat(path, variable_names=("masterordering", "subjectim"))
        order, images = content["masterordering"], content["subjectim"]
    except KeyError as error:
        raise FileFormatError(f"{path} holds no {error}: it is not NSD's design file.") from error
    except (MatReadError, NotImplementedError, ValueError, OSError, TypeError, EOFError) as error:
        raise FileFormatError(f"{path} is not a readable MATLAB file ({type(error).__name__}: {error}).") from error
    order, images = np.asarray(order).ravel().astype(np.int64), np.asarray(images).astype(np.int64)
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


def read_stimuli(path: Path) -> pd.DataFrame:
    """Read `nsd_stim_info_merged.csv`: columns nsdId (from 0), shared1000, and subject{s}_rep{r}.

    Raises
    ------
    InputError
        If it is missing.
    FileFormatError
        If it lacks a column.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: it says which images the subjects share; download it.")
    wanted = ["nsdId", "shared1000", *(f"subject{s}_rep{r}" for s in range(1, 9) for r in range(3))]
    try:
        table = pd.read_csv(path, usecols=wanted)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise FileFormatError(
            f"{path} is not NSD's table of stimuli ({(str(error).splitlines() or ['unreadable'])[0]})."
        ) from error
    return table.astype({"shared1000": bool})


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
