"""`load_laion_fmri`: a person of LAION-fMRI (7T), from the files as they are distributed.

Betas are GLMsingle's last stage, shrunk by an amount of each voxel's own: they are z-scored within each session, over
all of its trials, before repeats are averaged. Tables call an image `label`, its file's name. Noise ceilings are stored
in percent of the variance of means over n repeats; what scores need is the signal over the noise of a single trial:

    ncsnr² = c / (1 - c) · mean(1 / n),   c = ceiling / 100

The data set holds sessions 31 to 34 back: nobody can read them, and none of them is looked for.

References
----------
The package `laion-fmri` 0.1.0 (BSD 3-Clause) and its documentation, for paths, columns, ceilings and splits.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.beta_files import NiftiBetas
from braincorl.datasets.betas.grids import Grid, check_same_grid, ncsnr_of_ceiling, read_mask, read_volume
from braincorl.datasets.file_names import blanked, session_numbers
from braincorl.datasets.splits import Split
from braincorl.datasets.subject import SubjectData, ZScore, check_zscore
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.rois import Rois, names_among, read_rois
from braincorl.datasets.trials.trials_table import TrialsTable, read_cells
from braincorl.errors import FileFormatError, InputError
from braincorl.names import normal_name
from braincorl.storage.files import Progress, read_json

logger = logging.getLogger(__name__)

PEOPLE = (1, 3, 5, 6, 7)  # numbers that the release has
HELD_BACK = (31, 32, 33, 34)  # sessions that the bucket refuses to everybody
BETAS = "derivatives/glmsingle-tedana"
SHARED = "shared"
# Ceilings over sessions and the repeats that they are for.
CEILINGS = {"Noiseceiling4rep": 4, "Noiseceiling12rep": 12}
OOD_KIND = re.compile(r"shared_4rep_OOD_([A-Za-z0-9-]+)_.+")

Voxels = str | Sequence[str] | npt.NDArray[np.bool_]


class LaionFolder:
    """Where the files of a person are.

    Parameters
    ----------
    root
        Folder that mirrors the bucket: `derivatives` is in it.
    subject
        1, 3, 5, 6 or 7, or a label such as "sub-01".

    Raises
    ------
    InputError
        If there is no such person.
    """

    def __init__(self, root: str | Path, subject: int | str) -> None:
        number = re.fullmatch(r"(?:sub-)?0*(\d{1,3})", str(subject))
        if number is None or int(number.group(1)) not in PEOPLE:
            raise InputError(f"subject is {subject!r}, but LAION-fMRI's people are {', '.join(map(str, PEOPLE))}.")
        self.root, self.label = Path(root), f"sub-{int(number.group(1)):02d}"
        self.betas = self.root / BETAS / self.label
        self.regions = self.root / "derivatives" / "atlases" / self.label / "rois"
        self.mask = self.betas / f"{self.label}_task-images_space-T1w_desc-meanR2gt15mask_mask.nii.gz"

    def session(self, number: int) -> tuple[Path, Path]:
        """Betas and table of a session."""
        ses = f"ses-{number:02d}"
        stem = self.betas / ses / "func" / f"{self.label}_{ses}_task-images"
        return (
            stem.with_name(f"{stem.name}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"),
            stem.with_name(f"{stem.name}_desc-SingletrialBetas_trials.tsv"),
        )

    def ceiling(self, desc: str) -> Path:
        """Map of noise ceilings over sessions."""
        return self.betas / f"{self.label}_task-images_space-T1w_desc-{desc}_statmap.nii.gz"

    def sessions(self) -> list[int]:
        """Sessions of which betas are there."""
        return sorted(number for number, folder in self._folders() if self._holds_betas(number, folder))

    def without_betas(self) -> list[str]:
        """Folders of sessions in which there are none, such as those that a version control did not fetch."""
        return sorted(folder.name for number, folder in self._folders() if not self._holds_betas(number, folder))

    def _folders(self) -> list[tuple[int, Path]]:
        found = [(re.fullmatch(r"ses-(\d+)", path.name), path) for path in self.betas.glob("ses-*")]
        numbers = [(int(number.group(1)), path) for number, path in found if number is not None]
        return [(number, path) for number, path in numbers if number not in HELD_BACK]

    def _holds_betas(self, number: int, folder: Path) -> bool:
        path = self.session(number)[0]
        return folder.name == path.parent.parent.name and path.exists()


def load_laion_fmri(
    root: str | Path,
    subject: int | str,
    *,
    voxels: Voxels = "mask",
    min_ceiling: float = 0.0,
    sessions: Iterable[int] | None = None,
    zscore: ZScore = "session",
    images: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read a person of LAION-fMRI.

    Parameters
    ----------
    root
        Folder that mirrors the bucket: it holds `derivatives`.
    subject
        1, 3, 5, 6 or 7, or "sub-01" and so on.
    voxels
        "mask" (the data set's own: more than 15 % of variance explained), "all", a region's name or several, or a 3-D
        bool array on the grid of the betas.
    min_ceiling
        Leave out voxels whose noise ceiling, as published over the sessions (0 to 1), is below this.
    sessions
        Which sessions, from 1; by default all that are there.
    zscore
        "session" as above; "none" leaves betas that are shrunk by another amount in each voxel.
    images
        Images to keep, by the name of their file; by default all.
    progress
        Called with (trials read, trials in all).

    Returns
    -------
    SubjectData
        `image_ids` are labels, which splits name.

    Raises
    ------
    InputError
        If files are missing, contradict one another, or no voxel is left.
    FileFormatError
        If a file is damaged.
    """
    recording = open_laion_fmri(root, subject, voxels=voxels, min_ceiling=min_ceiling, sessions=sessions, zscore=zscore)
    return recording.load(images, progress)


def open_laion_fmri(
    root: str | Path,
    subject: int | str,
    *,
    voxels: Voxels = "mask",
    min_ceiling: float = 0.0,
    sessions: Iterable[int] | None = None,
    zscore: ZScore = "session",
) -> Recording:
    """Open a person of LAION-fMRI without reading the betas. Parameters and errors are those of `load_laion_fmri`.

    Returns
    -------
    Recording
    """
    check_zscore(zscore)
    if not isinstance(min_ceiling, int | float | np.number) or not 0 <= min_ceiling <= 1:
        raise InputError(f"min_ceiling is {min_ceiling!r}, expected a share of variance from 0 to 1.")
    folder = LaionFolder(root, subject)
    numbers = _choose_sessions(folder, sessions)
    first = NiftiBetas(folder.session(numbers[0])[0], None).grid
    names = sorted(folder.regions.glob("*.nii.gz")) if folder.regions.is_dir() else []
    grid = _chosen(folder, first, names, voxels)
    ceiling = _read_ceilings(folder, grid)
    if min_ceiling > 0:
        if ceiling is None:
            raise InputError(
                f"min_ceiling needs a map of noise ceilings, such as {folder.ceiling('Noiseceiling4rep')}."
            )
        mask = grid.mask.copy()
        mask[grid.mask] = np.nan_to_num(ceiling[0]) >= min_ceiling
        if not mask.any():
            raise InputError(f"no voxel of {folder.label} has a noise ceiling of at least {min_ceiling}: lower it.")
        ceiling = (ceiling[0][mask[grid.mask]], ceiling[1])
        grid = Grid(mask, grid.affine, grid.path, grid.space_code)
    return Recording(
        name=folder.label,
        sources=[NiftiBetas(folder.session(number)[0], grid) for number in numbers],
        tables=[_table(folder, number, grid) for number in numbers],
        zscore=zscore == "session",
        grid=grid,
        rois=_regions(names, grid),
        ncsnr=None if ceiling is None else ncsnr_of_ceiling(*ceiling),
        options={"data set": "laion-fmri", "sessions": numbers, "min_ceiling": min_ceiling},
    )


def _choose_sessions(folder: LaionFolder, sessions: Iterable[int] | None) -> list[int]:
    """Sessions to read, all of which are there."""
    there = folder.sessions()
    if not there:
        raise InputError(f"{folder.betas} holds no betas (ses-01/func/…_stat-effect_…_statmap.nii.gz): download them.")
    wanted = there if sessions is None else session_numbers(sessions)
    without = folder.without_betas()
    if sessions is None and without:
        logger.warning(
            "%s: %s %s no betas (ses-01/func/…_statmap.nii.gz, or a link to them that leads nowhere) and %s left out",
            folder.betas,
            ", ".join(without),
            *(("holds", "is") if len(without) == 1 else ("hold", "are")),
        )
    held = [number for number in wanted if number in HELD_BACK]
    if held:
        raise InputError(
            f"sessions {', '.join(map(str, held))} of LAION-fMRI are held back by the data set, for everybody: leave "
            "them out."
        )
    missing = [number for number in wanted if number not in there]
    if missing or not wanted:
        raise InputError(
            f"{folder.betas} lacks session {', '.join(map(str, missing)) or '(none named)'}; there are "
            f"{', '.join(map(str, there))}: download it, or choose among those."
        )
    return sorted(wanted)


def _read_ceilings(folder: LaionFolder, grid: Grid) -> tuple[npt.NDArray[np.float64], float] | None:
    """Noise ceilings (n_voxels,) between 0 and 1, and the mean of 1 / repeats that they are for; None without a map."""
    for desc, repeats in CEILINGS.items():
        path = folder.ceiling(desc)
        if not (path.exists() or path.is_symlink()):  # a link to nothing is said, and not passed over
            continue
        values, affine = read_volume(path)
        check_same_grid(values.shape, affine, path, grid)
        percent = np.asarray(values[grid.mask], dtype=np.float64)
        known = percent[np.isfinite(percent)]
        if known.size and (known.min() < 0 or known.max() > 100):
            raise InputError(f"{path} holds values from {known.min():g} to {known.max():g}, expected percentages.")
        # The unit is that of the whole map: the voxels that are read may all be noisy.
        largest = float(np.max(values, where=np.isfinite(values), initial=0.0))
        if 0 < largest <= 1:
            raise InputError(f"{path} holds values up to {largest:g}: expected percentages, not shares of 1.")
        if largest == 0 or known.size == 0:
            raise InputError(
                f"{path} holds no ceiling above 0{' in the mask' if largest else ''}: get a new copy, or remove it to "
                "estimate them from repeats."
            )
        return percent / 100, 1 / repeats
    logger.warning("%s holds no noise ceilings over sessions: they are estimated from repeats", folder.betas)
    return None


def split_laion_fmri(
    subject: SubjectData,
    name: str = "tau",
    *,
    pool: str = SHARED,
    variant: int = 0,
    kinds: Iterable[str] | None = None,
    splits: str | Path | None = None,
) -> Split:
    """Split a person's images as the data set's authors published it.

    Parameters
    ----------
    subject
        A person of LAION-fMRI.
    name
        "tau", "ood", "cluster_k5_0" to "cluster_k5_4", "random_0" to "random_4".
    pool
        "shared" (images that everybody saw), or the person's own, such as "sub-01".
    variant
        Which variant of the split; nearly all have one.
    kinds
        Of the split "ood", which kinds of images to test on, such as "gabor" or "relations"; by default all.
    splits
        Folder with `shared/tau.json` and so on; by default that of the installed package `laion_fmri`.

    Returns
    -------
    Split
        Of the images that the person has responses to.

    Raises
    ------
    InputError
        If there is no such split, or the person saw none of its images.
    FileFormatError
        If its file is damaged.
    """
    if pool not in (SHARED, subject.name):
        raise InputError(f"pool is '{pool}', but must be '{SHARED}' or the person's own, '{subject.name}'.")
    train, test = _read_split(name, pool, variant=variant, kinds=kinds, splits=splits)
    own, held = (subject.image_ids[np.isin(subject.image_ids, labels)] for labels in (train, test))
    for part, found, labels in (("train", own, train), ("test", held, test)):
        if found.size == 0:
            raise InputError(
                f"{subject.name} has no response to any of the {len(labels)} images of the {part} side of '{name}', "
                f"such as '{labels[0]}': read more sessions."
            )
        if found.size < len(labels):
            logger.info("%s saw %d of the %d %s images of '%s'", subject.name, found.size, len(labels), part, name)
    return Split(own, held)


def _read_split(
    name: str,
    pool: str,
    *,
    variant: int = 0,
    kinds: Iterable[str] | None = None,
    splits: str | Path | None = None,
) -> tuple[list[str], list[str]]:
    """Labels to learn from and to test on. Parameters and errors are those of `split_laion_fmri`."""
    folder = _splits_folder(splits) / pool
    path = folder / f"{name}.json"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.json"))) or "none"
        raise InputError(f"{folder} holds no split '{name}'; there are {there}.")
    content = read_json(path)
    found = _variant(content, variant, path)
    train, test = (_labels(found.get(key), key, path) for key in ("train_ids", "test_ids"))
    for key, labels in (("n_train", train), ("n_test", test)):
        if content.get(key, len(labels)) != len(labels):
            raise FileFormatError(f"{path} says {key} {content[key]}, but lists {len(labels)}: get a new copy.")
    both = set(train) & set(test)
    if both:
        raise FileFormatError(f"{path} has {len(both)} images on both sides, such as '{min(both)}': get a new copy.")
    if kinds is not None:
        test = _of_kinds(test, [kinds] if isinstance(kinds, str) else list(kinds), name)
    return train, test


def _variant(content: dict[str, Any], variant: int, path: Path) -> dict[str, Any]:
    variants = content.get("variants")
    if not isinstance(variants, list) or not all(isinstance(item, dict) for item in variants):
        raise FileFormatError(f"{path} is no split: it has no list 'variants'.")
    for item in variants:
        if item.get("variant_id") == variant:
            return dict(item)
    raise InputError(f"{path} has no variant {variant}; there are {[item.get('variant_id') for item in variants]}.")


def _labels(values: Any, key: str, path: Path) -> list[str]:
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise FileFormatError(f"{path} has no list of labels '{key}'.")
    if len(set(values)) < len(values):
        raise FileFormatError(f"{path} lists an image twice in '{key}'.")
    return [normal_name(value) for value in values]


def _of_kinds(test: list[str], kinds: list[str], name: str) -> list[str]:
    found = {label: match.group(1) for label in test if (match := OOD_KIND.fullmatch(label))}
    known = sorted(set(found.values()))
    unknown = [kind for kind in kinds if kind not in known]
    if unknown or not kinds:
        raise InputError(
            f"the split '{name}' has no test images of kind '{unknown[0] if unknown else ''}': "
            f"{', '.join(known) or 'only ood has kinds'}."
        )
    return [label for label in test if found.get(label) in kinds]


def _splits_folder(given: str | Path | None) -> Path:
    if given is not None:
        if not Path(given).is_dir():
            raise InputError(f"splits is {given}, which is no folder.")
        return Path(given)
    spec = find_spec("laion_fmri")
    for place in [] if spec is None else list(spec.submodule_search_locations or ()):
        if (Path(place) / "splits" / "data").is_dir():
            return Path(place) / "splits" / "data"
    raise InputError(
        "the published splits come with the package laion-fmri, which is not installed: install it from "
        "github.com/ViCCo-Group/LAION-fMRI, or pass the folder laion_fmri/splits/data of it as splits."
    )


def _chosen(folder: LaionFolder, first: Grid, names: Sequence[Path], voxels: Voxels) -> Grid:
    """Grid of the betas, with the voxels that are wanted."""
    if isinstance(voxels, np.ndarray):
        if voxels.shape != first.mask.shape or voxels.dtype != np.bool_:
            raise InputError(
                f"voxels has shape {voxels.shape} and type {voxels.dtype}, expected bool {first.mask.shape}."
            )
        if not voxels.any():
            raise InputError("voxels is False everywhere: choose some.")
        return Grid(voxels, first.affine, first.path, first.space_code)
    if not isinstance(voxels, str) and not isinstance(voxels, Sequence):
        raise InputError(f"voxels is {voxels!r}, expected 'mask', 'all', names of regions, or a bool array.")
    if voxels == "all":
        return first
    if voxels == "mask":
        if not (folder.mask.exists() or folder.mask.is_symlink()):
            raise InputError(f"{folder.mask} is missing: download it, or choose voxels 'all' or a region.")
        mask = read_mask(folder.mask)
        check_same_grid(mask.mask.shape, mask.affine, folder.mask, first)
        return Grid(mask.mask, first.affine, folder.mask, first.space_code)
    by_name = {path.name.removesuffix(".nii.gz"): path for path in names}
    there = ", ".join(by_name) or f"those of {folder.regions}, which is empty"
    wanted = names_among(voxels, by_name, f"'mask', 'all' or regions among {there}")
    inside = np.zeros(first.mask.shape, dtype=bool)
    for name in wanted:
        region = read_mask(by_name[name])
        check_same_grid(region.mask.shape, region.affine, by_name[name], first)
        inside |= region.mask
    return Grid(inside, first.affine, by_name[wanted[0]], first.space_code)


def _regions(names: Sequence[Path], grid: Grid) -> Rois:
    """Regions that have a voxel among those that are read."""
    rois: Rois = {}
    for path in names:
        values, affine = read_volume(path)
        check_same_grid(values.shape, affine, path, grid)
        if (np.nan_to_num(values[grid.mask]) > 0).any():
            rois |= read_rois([path], grid, int(grid.mask.sum()))
    return rois


def _table(folder: LaionFolder, number: int, grid: Grid) -> TrialsTable:
    """Read what each volume of a session showed, in the order of the volumes."""
    betas, path = folder.session(number)
    n_volumes = NiftiBetas(betas, grid).n_trials
    header, rows = read_cells(path)
    names = ("label", "beta_index", "session")
    missing = [name for name in names if name not in header]
    if missing:
        raise InputError(f"{path} has columns {header} but none named '{missing[0]}': is it LAION-fMRI's?")
    columns = {name: [row[header.index(name)].strip() for row in rows] for name in names}
    if len(rows) != n_volumes:
        raise InputError(f"{path} has {len(rows)} rows but {betas} has {n_volumes} volumes: one row per volume.")
    said = {int(digits.group(1)) for text in columns["session"] if (digits := re.search(r"(\d+)$", text))}
    if said - {number}:
        raise InputError(f"{path} says session {min(said - {number})}, but it is the table of session {number}.")
    labels = np.asarray(blanked(columns["label"], f"{path}, column 'label'"), dtype=np.str_)
    n_blank = int((labels == "").sum())
    if n_blank == labels.size:
        raise InputError(f"{path}: column 'label' names no image in any row.")
    if n_blank:
        logger.warning("%s: %d of %d rows name no image and are left out", path, n_blank, labels.size)
    return TrialsTable(labels[_order(columns["beta_index"], path)], np.full(n_volumes, str(number)))


def _whole(cell: str) -> int:
    """Whole number that a cell says, such as 7 or 7.0."""
    number = int(float(cell))
    if number != float(cell):
        raise ValueError(f"'{cell}'")
    return number


def _order(cells: list[str], path: Path) -> npt.NDArray[np.intp]:
    """Rows in the order of the volumes, which `beta_index` numbers from 0 or from 1."""
    try:
        index = np.array([_whole(cell) for cell in cells], dtype=np.intp)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: column 'beta_index' holds what is no whole number ({error}).") from error
    order = np.argsort(index, kind="stable")
    if not np.array_equal(index[order] - index.min(), np.arange(index.size)) or index.min() not in (0, 1):
        raise InputError(
            f"{path}: column 'beta_index' goes from {index.min()} to {index.max()} over {index.size} rows, expected "
            "each volume once, from 0 or 1."
        )
    return order
