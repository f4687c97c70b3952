"""Where the files of the Natural Scenes Dataset (NSD) are, and what its design tables say.

The tables count from 1: trial t (from 0) of subject s (from 1) showed the stimulus
`subjectim[s - 1, masterordering[t] - 1] - 1`, a row (from 0) of `nsd_stimuli.hdf5`. That number is an image's name
here, as it is the name that `braincorl embed nsd_stimuli.hdf5` gives.

References
----------
Allen et al., A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence, Nature
Neuroscience 25 (2022). File names and conventions follow the data manual of NSD and public code that reads it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from braincorl.errors import FileFormatError, InputError

N_SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
TRIALS_PER_SESSION = 750
N_STIMULI = 73_000
PREPARATION = "betas_fithrf_GLMdenoise_RR"
SPACES = ("func1pt8mm", "func1mm", "fsaverage")
HEMISPHERES = ("lh", "rh")
GRIDS = {
    "func1pt8mm": (
        (81, 104, 83), (82, 106, 84), (81, 106, 82), (85, 99, 80),
        (79, 97, 78), (85, 113, 83), (78, 95, 81), (80, 103, 78),
    )
}  # fmt: skip


@dataclass(frozen=True)
class NsdFolder:
    """One subject's files under the folder that mirrors NSD's bucket.

    Attributes
    ----------
    root
        Folder that holds `nsddata` and `nsddata_betas`.
    subject
        1 to 8.
    space
        "func1pt8mm", "func1mm" or "fsaverage".
    preparation
        Which betas.
    """

    root: Path
    subject: int
    space: str = "func1pt8mm"
    preparation: str = PREPARATION

    @property
    def label(self) -> str:
        """Name of the subject in NSD, as in `subj01`."""
        return f"subj{self.subject:02d}"

    @property
    def betas(self) -> Path:
        """Folder of the betas."""
        return self.root / "nsddata_betas" / "ppdata" / self.label / self.space / self.preparation

    @property
    def regions(self) -> Path:
        """Folder of the label volumes."""
        return self.root / "nsddata" / "ppdata" / self.label / self.space / "roi"

    @property
    def design(self) -> Path:
        """Table of what was shown when."""
        return self.root / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"

    @property
    def stimuli(self) -> Path:
        """Table of the stimuli."""
        return self.root / "nsddata" / "experiments" / "nsd" / "nsd_stim_info_merged.csv"

    @property
    def pictures(self) -> Path:
        """The stimuli themselves."""
        return self.root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"

    @property
    def ncsnr(self) -> list[Path]:
        """Maps of noise ceiling signal-to-noise ratios: one, or one per hemisphere."""
        if self.space == "fsaverage":
            return [self.betas / f"{side}.ncsnr.mgh" for side in HEMISPHERES]
        return [self.betas / "ncsnr.nii.gz"]

    @property
    def n_sessions(self) -> int:
        """Sessions that the subject completed."""
        return N_SESSIONS[self.subject - 1]

    def session_forms(self, number: int) -> list[list[Path]]:
        """Ways to store a session's betas, each one file or one per hemisphere; what reads fastest comes first."""
        stem = f"betas_session{number:02d}"
        if self.space == "fsaverage":
            return [[self.betas / f"{side}.{stem}.mgh" for side in HEMISPHERES]]
        # HDF5 is read without decompressing what lies outside the mask.
        return [[self.betas / f"{stem}{end}"] for end in (".hdf5", ".nii.gz", ".nii")]

    def session(self, number: int) -> list[Path]:
        """Betas of a session: one file, or one per hemisphere; empty where there is none."""
        return first_there(self.session_forms(number))

    def sessions(self) -> list[int]:
        """Sessions whose betas are there."""
        return [number for number in range(1, self.n_sessions + 1) if self.session(number)]

    def atlas_forms(self, atlas: str) -> list[list[Path]]:
        """Ways to store an atlas: one label volume, or one per hemisphere."""
        halves = [self.regions / f"{side}.{atlas}.nii.gz" for side in HEMISPHERES]
        return [[self.regions / f"{atlas}.nii.gz"], halves]

    def color_tables(self, atlas: str) -> list[Path]:
        """Where the names of an atlas's labels may be: the subject's own file, then the one of fsaverage."""
        label = self.root / "nsddata" / "freesurfer"
        return [label / owner / "label" / f"{atlas}.mgz.ctab" for owner in (self.label, "fsaverage")]

    def color_table(self, atlas: str) -> Path | None:
        """Names of an atlas's labels, where they are there."""
        return next((path for path in self.color_tables(atlas) if path.is_file()), None)

    def wanted_sessions(self, sessions: Iterable[int] | None) -> list[int]:
        """Sessions in order, without repeats; all that the subject completed for None.

        Raises
        ------
        InputError
            If the subject did not complete one of them.
        """
        wanted = list(range(1, self.n_sessions + 1)) if sessions is None else sorted(set(sessions))
        if not wanted or wanted[0] < 1 or wanted[-1] > self.n_sessions:
            raise InputError(f"sessions must be among 1 to {self.n_sessions} for subject {self.subject}, not {wanted}.")
        return wanted


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


def first_there(forms: Iterable[list[Path]]) -> list[Path]:
    """Of several ways to store the same, the first all of whose files are there; empty for none."""
    return next((paths for paths in forms if all(path.is_file() for path in paths)), [])


def check_space(space: str) -> None:
    """Refuse a space that no betas are read in.

    Raises
    ------
    InputError
        Naming those that are.
    """
    if space not in SPACES:
        raise InputError(f"space must be 'func1pt8mm', 'func1mm' or 'fsaverage', but is {space!r}.")


def check_subject(subject: int) -> None:
    """Refuse a subject that NSD does not have.

    Raises
    ------
    InputError
        If it is not 1 to 8.
    """
    if subject not in range(1, len(N_SESSIONS) + 1):
        raise InputError(f"subject must be 1 to {len(N_SESSIONS)}, but is {subject!r}.")


def in_runs(numbers: Sequence[int]) -> str:
    """Numbers as text, runs of them joined."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
