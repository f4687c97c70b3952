"""`load_nsd`: a subject of the Natural Scenes Dataset, from the files as they are distributed.

Volume betas are stored as int16 and are 300 times the % signal change; surface betas are float and are not. Responses
are z-scored within each session, over all of its trials, and averaged over an image's repeats, which can never
straddle a split therefore. Noise ceilings come from the `ncsnr` map beside the betas.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.beta_files import BetasSource, HDF5Betas, NiftiBetas, Scaled
from braincorl.datasets.betas.grids import Grid
from braincorl.datasets.nsd.areas import read_atlases, select_voxels
from braincorl.datasets.nsd.design import check_design_against_stimuli, read_design, read_stimuli, shared_images
from braincorl.datasets.nsd.layout import (
    PREPARATION,
    TRIALS_PER_SESSION,
    NsdFolder,
    check_space,
    check_subject,
    first_there,
    in_runs,
)
from braincorl.datasets.space import Surface
from braincorl.datasets.splits import Split
from braincorl.datasets.subject import SubjectData, ZScore, check_zscore
from braincorl.datasets.surfaces.surface_file import SurfaceBetas, n_vertices
from braincorl.datasets.surfaces.surface_person import read_pair
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.errors import InputError
from braincorl.storage.files import Progress

logger = logging.getLogger(__name__)

SCALE = 300.0  # betas of volumes are stored as int16, percent signal change times 300

Voxels = str | Sequence[str] | npt.NDArray[np.bool_]


def load_nsd(
    root: str | Path,
    subject: int,
    *,
    voxels: Voxels = "higher-visual",
    min_ceiling: float = 0.0,
    sessions: Iterable[int] | None = None,
    atlases: Sequence[str] | None = None,
    zscore: ZScore = "session",
    space: str = "func1pt8mm",
    preparation: str = PREPARATION,
    images: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read a subject of NSD.

    Parameters
    ----------
    root
        Folder that mirrors the bucket: it holds `nsddata` and `nsddata_betas`.
    subject
        1 to 8.
    voxels
        "higher-visual" (in a functional localiser's region but in none of the retinotopic ones), "functional" (in
        either), "cortex", "all", a region's or atlas's name or several ("nsdgeneral", ["FFA-1", "FFA-2"]), or a 3-D
        bool array on the grid of the betas.
    min_ceiling
        Leave out voxels whose noise ceiling of R², for means of three trials, is below this.
    sessions
        Which sessions, from 1; by default all that the subject completed.
    atlases
        Atlases to take regions from; by default those of vision, where their files are there.
    zscore
        "session" as above; "none" leaves % signal change.
    space
        "func1pt8mm", "func1mm", or "fsaverage", whose voxels are vertices: then `voxels` is "all" or a bool array over
        all vertices, left hemisphere first.
    preparation
        Folder of the betas: `betas_fithrf_GLMdenoise_RR`, `betas_fithrf` or `betas_assumehrf`.
    images
        Images to keep, by the row of the stimulus file as text; by default all.
    progress
        Called with (trials read, trials in all).

    Returns
    -------
    SubjectData
        `image_ids` are rows of `nsd_stimuli.hdf5`, from 0, as text.

    Raises
    ------
    InputError
        If files are missing, contradict one another, or no voxel is left.
    FileFormatError
        If a file is damaged.
    """
    recording = open_nsd(
        root,
        subject,
        voxels=voxels,
        min_ceiling=min_ceiling,
        sessions=sessions,
        atlases=atlases,
        zscore=zscore,
        space=space,
        preparation=preparation,
    )
    return recording.load(images, progress)


def open_nsd(
    root: str | Path,
    subject: int,
    *,
    voxels: Voxels = "higher-visual",
    min_ceiling: float = 0.0,
    sessions: Iterable[int] | None = None,
    atlases: Sequence[str] | None = None,
    zscore: ZScore = "session",
    space: str = "func1pt8mm",
    preparation: str = PREPARATION,
) -> Recording:
    """Open a subject of NSD without reading its betas. Parameters and errors are those of `load_nsd`.

    Returns
    -------
    Recording
    """
    check_subject(subject)
    check_zscore(zscore)
    check_space(space)
    folder = NsdFolder(Path(root), subject, space, preparation)
    numbers = _choose_sessions(folder, sessions)
    if space == "fsaverage":
        return _open_on_surface(folder, numbers, voxels, zscore == "session")
    labels = read_atlases(folder, atlases)
    grid, ncsnr, rois = select_voxels(folder, labels, voxels, min_ceiling)
    return Recording(
        name=f"sub-{subject:02d}",
        sources=[_open_session(folder.session(number)[0], grid) for number in numbers],
        tables=_tables(folder, numbers),
        zscore=zscore == "session",
        grid=grid,
        rois=rois,
        ncsnr=ncsnr,
        options={"data set": "nsd", "space": space, "preparation": preparation, "sessions": numbers},
    )


def split_nsd(
    root: str | Path, subject: SubjectData, *, subjects: Sequence[int] = tuple(range(1, 9)), min_repeats: int = 3
) -> Split:
    """Split a subject's images as the field does: shared images as test, the subject's own to learn from.

    Parameters
    ----------
    root
        As for `load_nsd`.
    subject
        A subject of NSD.
    subjects
        Who must have seen a test image.
    min_repeats
        How often, in completed sessions. All eight subjects saw 515 images three times, 907 at least once.

    Returns
    -------
    Split
        `test` are shared images with a response here. None of the 1,000 images that were meant to be shared is in
        `own`, whether or not it is tested on.

    Raises
    ------
    InputError
        If the table of stimuli is missing, or `subject` saw no shared image.
    """
    table = read_stimuli(NsdFolder(Path(root), 1).stimuli)
    shared = shared_images(table, subjects, min_repeats).astype(str)
    meant = table["nsdId"].to_numpy()[table["shared1000"].to_numpy()].astype(str)
    test = subject.image_ids[np.isin(subject.image_ids, shared)]
    if test.size == 0:
        raise InputError(
            f"{subject.name} has no response to any of the {shared.size} images that subjects "
            f"{', '.join(map(str, subjects))} saw {min_repeats} times: read more sessions, or lower min_repeats."
        )
    own = subject.image_ids[~np.isin(subject.image_ids, np.concatenate([shared, meant]))]
    return Split(own, test)


def _choose_sessions(folder: NsdFolder, sessions: Iterable[int] | None) -> list[int]:
    """Sessions to read, all of whose files are there."""
    wanted = folder.wanted_sessions(sessions)
    found = folder.sessions()
    if not found:
        raise InputError(
            f"{folder.betas} holds no betas_sessionXX.nii.gz or .hdf5: check the folder, the subject and the "
            "preparation (braincorl data check says what is there)."
        )
    missing = [number for number in wanted if number not in found]
    if missing:
        raise InputError(
            f"{folder.betas} lacks {len(missing)} of {len(wanted)} sessions ({in_runs(missing)}): download them, or "
            f"choose among those that are there ({in_runs(found)}) by sessions."
        )
    return wanted


def _open_session(path: Path, grid: Grid) -> BetasSource:
    source: NiftiBetas | HDF5Betas
    if path.suffix == ".hdf5":
        source = HDF5Betas(path, "betas", "TZYX", grid.mask)
        scaled = False
    else:
        # Which grid a file is on follows from its folder; headers of betas and regions need not agree to the digit.
        source = NiftiBetas(path, grid, same_affine=False)
        scaled = source.is_scaled
    if source.n_trials != TRIALS_PER_SESSION:
        raise InputError(
            f"{path} holds {source.n_trials} trials, expected {TRIALS_PER_SESSION}: it is truncated or not NSD's."
        )
    if source.stored_type.kind == "i" and not scaled:
        return Scaled(source, SCALE)
    return source


def _open_on_surface(folder: NsdFolder, numbers: list[int], voxels: Voxels, zscore: bool) -> Recording:
    """Open float betas on fsaverage, which are % signal change already."""
    left = n_vertices(folder.session(numbers[0])[0])
    right = n_vertices(folder.session(numbers[0])[1])
    if isinstance(voxels, np.ndarray) and voxels.shape == (left + right,):
        chosen = voxels.astype(bool)
    elif isinstance(voxels, str) and voxels == "all":
        chosen = np.ones(left + right, dtype=bool)
    else:
        raise InputError(f"on fsaverage voxels must be 'all' or a bool array of {left + right} vertices.")
    surface = Surface(chosen[:left], chosen[left:])
    maps = first_there([folder.ncsnr])
    return Recording(
        name=f"sub-{folder.subject:02d}",
        sources=[_open_hemispheres(folder.session(number), surface) for number in numbers],
        tables=_tables(folder, numbers),
        zscore=zscore,
        surface=surface,
        ncsnr=read_pair((maps[0], maps[1]), surface).astype(np.float64) if maps else None,
        options={"data set": "nsd", "space": "fsaverage", "preparation": folder.preparation, "sessions": numbers},
    )


def _open_hemispheres(paths: Sequence[Path], surface: Surface) -> SurfaceBetas:
    source = SurfaceBetas(paths[0], paths[1], surface)
    if source.n_trials != TRIALS_PER_SESSION:
        raise InputError(f"{source.path} holds {source.n_trials} trials, expected {TRIALS_PER_SESSION}: truncated?")
    return source


def _tables(folder: NsdFolder, numbers: list[int]) -> list[TrialsTable]:
    shown = read_design(folder.design).shown(folder.subject)
    if shown.size < numbers[-1] * TRIALS_PER_SESSION:
        raise InputError(f"{folder.design} lists {shown.size} trials, too few for session {numbers[-1]}.")
    if folder.stimuli.is_file():
        check_design_against_stimuli(shown, read_stimuli(folder.stimuli), folder.subject, folder.design)
    tables = []
    for number in numbers:
        trials = shown[(number - 1) * TRIALS_PER_SESSION : number * TRIALS_PER_SESSION]
        tables.append(TrialsTable(trials.astype(np.str_), np.full(trials.size, f"{number:02d}")))
    return tables
