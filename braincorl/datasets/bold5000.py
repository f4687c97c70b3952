"""`load_bold5000`: a subject of BOLD5000, release 2.0.

Betas are % signal change and are not scaled further; responses are z-scored within each session. The affine in the
betas files is reported to be wrong, so the brain mask's is used. Region masks are found by what their names mean, as
they vary between subjects ("LHLO" and "LHLOC", "RHRRSC" and "RHRSC").

References
----------
Chang et al., BOLD5000, a public fMRI dataset while viewing 5000 visual images, Scientific Data 6 (2019); release 2.0:
figshare 14456124.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.beta_files import NiftiBetas
from braincorl.datasets.betas.grids import Grid, read_mask
from braincorl.datasets.file_names import session_numbers
from braincorl.datasets.subject import SubjectData, ZScore, check_zscore
from braincorl.datasets.trials.labels import check_sides
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.rois import Rois, names_among
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.errors import InputError
from braincorl.names import normal_name
from braincorl.storage.files import Progress, read_text, text_lines, walk_files

logger = logging.getLogger(__name__)

N_SESSIONS = (15, 15, 15, 9)  # of CSI1 to CSI4, as published
RUN_TRIALS = 37  # as published
GRIDS = ((71, 89, 72), (72, 92, 70), (72, 88, 67), (70, 89, 70))  # voxels of the release 2.0 files
PREPARATION = "TYPED-FITHRF-GLMDENOISE-RR"
REGIONS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
VOLUME = r"\.nii(\.gz)?$"


def load_bold5000(
    root: str | Path,
    subject: int,
    *,
    voxels: str | Sequence[str] = "brain",
    sessions: Iterable[int] | None = None,
    zscore: ZScore = "session",
    preparation: str = PREPARATION,
    images: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read a subject of BOLD5000.

    Parameters
    ----------
    root
        Folder with the files, in it or below it.
    subject
        1 to 4, for CSI1 to CSI4.
    voxels
        "brain" for the brain mask, or a region's name or several: EarlyVis, LOC, OPA, PPA, RSC, with LH or RH in front
        for one hemisphere.
    sessions
        Which sessions, from 1; by default all that the subject completed.
    zscore
        "session" scales each voxel to mean 0 and standard deviation 1 over the trials of each session; "none" leaves
        % signal change.
    preparation
        Middle of the betas files' names.
    images
        Images to keep; by default all.
    progress
        Called with (trials read, trials in all).

    Returns
    -------
    SubjectData
        `image_ids` are file names, as in the subject's `imgnames.txt`. Only 113 images were repeated: noise ceilings
        rest on those.

    Raises
    ------
    InputError
        If files are missing or do not fit together.
    FileFormatError
        If a file is damaged.
    """
    recording = open_bold5000(root, subject, voxels=voxels, sessions=sessions, zscore=zscore, preparation=preparation)
    return recording.load(images, progress)


def open_bold5000(
    root: str | Path,
    subject: int,
    *,
    voxels: str | Sequence[str] = "brain",
    sessions: Iterable[int] | None = None,
    zscore: ZScore = "session",
    preparation: str = PREPARATION,
) -> Recording:
    """Open a subject of BOLD5000 without reading its betas. Parameters and errors are those of `load_bold5000`.

    Returns
    -------
    Recording
    """
    if subject not in range(1, len(N_SESSIONS) + 1):
        raise InputError(f"subject must be 1 to {len(N_SESSIONS)}, but is {subject!r}.")
    check_zscore(zscore)
    root, label = Path(root), f"CSI{subject}"
    files = files_below(root)
    brain = read_mask(_find_one(files, root, f"{label}_brainmask" + VOLUME))
    regions = _find_regions(files, label, brain)
    grid = Grid(_chosen(brain, regions, voxels), brain.affine, brain.path, brain.space_code)
    wanted = sorted(session_numbers(sessions)) if sessions is not None else list(range(1, N_SESSIONS[subject - 1] + 1))
    if not wanted or wanted[0] < 1 or wanted[-1] > N_SESSIONS[subject - 1]:
        raise InputError(f"sessions must be among 1 to {N_SESSIONS[subject - 1]} for {label}, not {wanted}.")
    # The list of names is cut by the lengths of the sessions, so those before a wanted one must be there as well.
    opened = {
        number: NiftiBetas(
            _find_one(files, root, rf"{label}_GLMbetas-{re.escape(preparation)}_ses-{number:02d}" + VOLUME),
            grid,
            same_affine=False,
        )
        for number in range(1, wanted[-1] + 1)
    }
    names = read_image_names(_find_one(files, root, f"{label}_imgnames.txt$"))
    ends = np.cumsum([source.n_trials for source in opened.values()])
    if ends[-1] > len(names) or (wanted[-1] == N_SESSIONS[subject - 1] and ends[-1] != len(names)):
        raise InputError(
            f"{label}_imgnames.txt names {len(names)} trials but the first {wanted[-1]} sessions hold {ends[-1]}: "
            "a file is truncated or belongs to another subject."
        )
    tables = []
    for number in wanted:
        shown = names[ends[number - 1] - opened[number].n_trials : ends[number - 1]]
        tables.append(TrialsTable(np.asarray(shown, dtype=np.str_), np.full(len(shown), f"{number:02d}")))
    return Recording(
        name=f"sub-{label}",
        sources=[opened[number] for number in wanted],
        tables=tables,
        zscore=zscore == "session",
        grid=grid,
        rois={name: members[grid.mask] for name, members in regions.items() if members[grid.mask].any()},
        options={"data set": "bold5000", "preparation": preparation, "sessions": wanted},
    )


def read_image_names(path: Path) -> list[str]:
    """Read one image name per trial, in session order.

    Raises
    ------
    InputError
        If the file cannot be read or a line is empty.
    """
    names = [normal_name(line.strip()) for line in text_lines(read_text(path, "list of image names").rstrip())]
    if not names or "" in names:
        raise InputError(f"{path} must name one image per line, but line {[*names, ''].index('') + 1} is empty.")
    return names


def _find_regions(files: Sequence[Path], label: str, brain: Grid) -> Rois:
    """Find a subject's region masks: each region, and each in one hemisphere as `LHPPA`, on the brain mask's grid."""
    sides: dict[tuple[str, str], npt.NDArray[np.bool_]] = {}
    for path in files:
        entity = re.search(rf"{label}_mask-?(LH|RH)(\w+)" + VOLUME, path.name)
        if entity is None:
            continue
        side, region = entity.group(1), _region(entity.group(2))
        grid = read_mask(path)
        if grid.mask.shape != brain.mask.shape:
            raise InputError(
                f"{path} has shape {grid.mask.shape} but the brain mask has {brain.mask.shape}: it belongs to another "
                "subject or space."
            )
        if not np.allclose(grid.affine, brain.affine, atol=1e-2):
            logger.warning("%s has another affine than the brain mask, whose affine is used", path)
        sides[side, region] = grid.mask
    rois: Rois = {}
    for (side, region), members in sides.items():
        rois[region] = rois.get(region, np.zeros_like(members)) | members
        rois[side + region] = members
    for region in {name for _, name in sides}:
        pair = [sides.get((side, region)) for side in ("LH", "RH")]
        if pair[0] is not None and pair[1] is not None and not check_sides(pair[0], pair[1], brain.affine):
            logger.warning("the left mask of %s lies right of the right one: the hemispheres look swapped", region)
    return rois


def files_below(root: Path) -> list[Path]:
    """Files in a folder and below.

    Raises
    ------
    InputError
        If it is no folder.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder.")
    return walk_files(root)


def _find_one(files: Sequence[Path], root: Path, pattern: str) -> Path:
    """Find the one file whose whole name matches a pattern."""
    shown = pattern.removesuffix(VOLUME).replace("\\", "").removesuffix("$")
    shown += ".nii.gz" if pattern.endswith(VOLUME) else ""
    found = [path for path in files if re.match(pattern, path.name)]
    if not found:
        raise InputError(f"{root} holds no {shown}, in it or below it: download it (braincorl data check lists all).")
    if len(found) > 1:
        raise InputError(f"{root} holds {shown} {len(found)} times, as {found[0]} and {found[1]}: keep one.")
    return found[0]


def _region(name: str) -> str:
    """Region that a mask's name means: the known one that it is, ends with, or begins."""
    for known in REGIONS:
        if name.lower().endswith(known.lower()) or (len(name) > 1 and known.lower().startswith(name.lower())):
            return known
    return name


def _chosen(brain: Grid, regions: Rois, voxels: str | Sequence[str]) -> npt.NDArray[np.bool_]:
    if voxels == "brain":
        return brain.mask
    there = ", ".join(regions) or "none: no region mask was found"
    names = names_among(voxels, regions, f"'brain' or regions among {there}")
    return np.asarray(np.any([regions[name] for name in names], axis=0) & brain.mask)
