"""Where the files of the Natural Scenes Dataset (NSD) are.

References
----------
Allen et al., A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence, Nature
Neuroscience 25 (2022). File names and conventions follow the data manual of NSD and public code that reads it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from braincorl.datasets.file_names import session_numbers
from braincorl.errors import InputError

N_SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)  # of people 1 to 8, as released
TRIALS_PER_SESSION = 750  # 12 runs of 62 or 63 trials
N_STIMULI = 73_000  # rows of nsd_stimuli.hdf5
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
        wanted = list(range(1, self.n_sessions + 1)) if sessions is None else sorted(session_numbers(sessions))
        if not wanted or wanted[0] < 1 or wanted[-1] > self.n_sessions:
            raise InputError(f"sessions must be among 1 to {self.n_sessions} for subject {self.subject}, not {wanted}.")
        return wanted


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
