"""`load_bids`: a person from a folder of BIDS derivatives.

Betas are `sub-XX[_ses-YY]_task-ZZ[_space-…]_stat-effect[_desc-…]_statmap.nii.gz`, each with a trials table
`…_trials.tsv` beside it, whose name has the same entities or fewer. A mask is `…_mask.nii.gz` without a `label-`
entity; with one it is a region (of one hemisphere where there is `hemi-`), and so is every label of a `…_dseg.nii.gz`.
A map `…_stat-ncsnr…_statmap.nii.gz` gives noise ceilings. On a surface names end in `.func.gii`, `.shape.gii`,
`.label.gii` or `.mgh` and have `hemi-L` or `hemi-R`, or end in `.dtseries.nii`, `.dscalar.nii` or `.dlabel.nii`. A
folder may hold what other programs wrote, too: masks, regions and maps count only if they are in the space of the betas
and on their grid or surface.

References
----------
Gorgolewski et al., The brain imaging data structure, Scientific Data 3 (2016); derivatives: bids-specification 1.9.
"""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from braincorl.datasets.betas.nifti import NiftiFile
from braincorl.datasets.file_names import entities, plain
from braincorl.datasets.load import Paths, open_subject
from braincorl.datasets.subject import SubjectData, ZScore
from braincorl.datasets.surfaces.cifti import CiftiFile, is_cifti
from braincorl.datasets.surfaces.hemispheres import is_on_surface
from braincorl.datasets.surfaces.surface_file import ENDINGS, n_vertices
from braincorl.datasets.trials.recording import Recording
from braincorl.errors import InputError
from braincorl.storage.files import Progress, read_json, walk_files

logger = logging.getLogger(__name__)

IMAGE_ENDINGS = (
    *(".nii.gz", ".nii", ".dtseries.nii", ".dscalar.nii", ".dlabel.nii"),
    *(".func.gii", ".shape.gii", ".label.gii", ".gii", ".mgh", ".mgz", ".annot"),
)


def load_bids(
    root: str | Path,
    subject: str | int,
    *,
    task: str | None = None,
    space: str | None = None,
    desc: str | None = None,
    mask: Paths | None = None,
    ncsnr: Paths | None = None,
    zscore: ZScore = "none",
    images: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read a person from BIDS derivatives.

    Parameters
    ----------
    root
        Folder with a `dataset_description.json`.
    subject
        Label, with or without `sub-`, or a number, with or without zeros in front.
    task, space, desc
        Which betas, where there are several.
    mask
        Mask to use, where there are several; on a surface a file of each hemisphere, or a CIFTI file.
    ncsnr
        Map of noise ceiling signal-to-noise ratios to use, where there are several; as the mask.
    zscore, images, progress
        As for `load_subject`.

    Returns
    -------
    SubjectData

    Raises
    ------
    InputError
        If files are missing, ambiguous, or do not fit together.
    FileFormatError
        If a file is damaged.
    """
    recording = open_bids(root, subject, task=task, space=space, desc=desc, mask=mask, ncsnr=ncsnr, zscore=zscore)
    return recording.load(images, progress)


def open_bids(
    root: str | Path,
    subject: str | int,
    *,
    task: str | None = None,
    space: str | None = None,
    desc: str | None = None,
    mask: Paths | None = None,
    ncsnr: Paths | None = None,
    zscore: ZScore = "none",
) -> Recording:
    """Open a person of BIDS derivatives without reading the betas. Parameters and errors are those of `load_bids`.

    Returns
    -------
    Recording
    """
    found = find_files(root, subject, task=task, space=space, desc=desc, mask=mask, ncsnr=ncsnr)
    return open_subject(
        found.betas,
        found.trials,
        found.mask or None,
        rois=found.rois,
        zscore=zscore,
        ncsnr=found.ncsnr or None,
        name=found.name,
    )


@dataclass(frozen=True)
class BidsFiles:
    """One person's files in a folder of BIDS derivatives, as `open_subject` takes them.

    Attributes
    ----------
    name
        BIDS label, as in `sub-01`.
    betas, trials
        In order of session and run, a trials table for each betas file, or pair of hemispheres.
    mask, ncsnr
        One file, or one of each hemisphere; none where there is none.
    rois
        Masks with a label, and parcellations.
    """

    name: str
    betas: list[Path]
    trials: list[Path]
    mask: list[Path]
    rois: list[Path]
    ncsnr: list[Path]


def find_files(
    root: str | Path,
    subject: str | int,
    *,
    task: str | None = None,
    space: str | None = None,
    desc: str | None = None,
    mask: Paths | None = None,
    ncsnr: Paths | None = None,
) -> BidsFiles:
    """Find a person's files by their names. Parameters and errors are those of `load_bids`.

    Returns
    -------
    BidsFiles
    """
    root = Path(root)
    check_description(root)
    folder = find_person(root, subject)
    files = [path for path in walk_files(folder) if entities(path).get("sub") == folder.name[4:]]
    betas = _find_betas(files, {"task": task, "space": space, "desc": desc}, str(folder))
    here = _like(betas, [path for path in files if _is(path, "mask") or _is(path, "dseg") or _is_ncsnr(path)])
    masks = [path for path in here if _is(path, "mask") and "label" not in entities(path)]
    signal = [path for path in here if _is_ncsnr(path)]
    one_of_each = [path for path in betas if not _has_left(path, betas)]
    tables = [_find_trials(path, files) for path in one_of_each]
    _tell_of_missing_betas(betas, [path for path in files if _is(path, "trials") and path not in tables])
    return BidsFiles(
        name=folder.name,
        betas=betas,
        trials=tables,
        mask=_paths(mask) if mask else _only_one(masks, "mask", "masks"),
        rois=[path for path in here if path not in masks and path not in signal],
        ncsnr=_paths(ncsnr) if ncsnr else _only_one(signal, "ncsnr", "ncsnr maps"),
    )


def find_person(root: Path, subject: str | int) -> Path:
    """Find the folder of a person, `sub-01` for "sub-01", "01", "1" and 1.

    Raises
    ------
    InputError
        If there is none, or several.
    """
    label = str(subject).removeprefix("sub-")
    if (root / f"sub-{label}").is_dir() and label:
        return root / f"sub-{label}"
    people = sorted(path for path in root.glob("sub-*") if path.is_dir())
    found = [path for path in people if label.isdecimal() and plain(path.name[4:]) == plain(label)]
    if len(found) > 1:
        raise InputError(f"{root} holds {' and '.join(path.name for path in found)}: give the label as it is written.")
    if not found:
        there = ", ".join(path.name for path in people) or "nobody"
        raise InputError(f"{root} holds no folder sub-{label}, but {there}: check the label.")
    return found[0]


def check_description(root: Path) -> None:
    """Look at `dataset_description.json`, and warn if it does not say that these are derivatives.

    Raises
    ------
    InputError
        If the folder does not exist, or the file cannot be read.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder.")
    path = root / "dataset_description.json"
    if not path.is_file():
        logger.warning("%s is missing: BIDS wants one, with DatasetType 'derivative'", path)
    elif read_json(path).get("DatasetType") != "derivative":
        logger.warning("%s does not say DatasetType 'derivative'", path)


def _find_betas(files: list[Path], wanted: dict[str, str | None], where: str) -> list[Path]:
    """Betas files of one task, space and description, in order of session and run; `wanted` must leave nothing open."""
    betas = [path for path in files if _is(path, "statmap") and entities(path).get("stat") == "effect"]
    if not betas:
        raise InputError(f"{where} holds no *_stat-effect_*statmap.nii.gz (.func.gii, .dtseries.nii), the betas.")
    for key, value in wanted.items():
        found = sorted({entities(path).get(key, "") for path in betas})
        if value is not None:
            betas = [path for path in betas if entities(path).get(key, "") == value]
            if not betas:
                raise InputError(f"{where} holds no betas with {key}-{value}; there are {_options(key, found)}.")
        elif len(found) > 1:
            raise InputError(f"{where} holds betas of {_options(key, found)}: choose one by {key} (--{key}).")
    kinds = sorted({_kind(path) for path in betas})
    if len(kinds) > 1:
        raise InputError(
            f"{where} holds betas as {' and as '.join(kinds)} that their names do not tell apart: keep one kind in a "
            "folder, or give them a space- or desc- of their own."
        )
    return sorted(betas, key=lambda path: [_number(entities(path).get(key, "")) for key in ("ses", "run")])


def _find_trials(betas: Path, files: list[Path]) -> Path:
    """Find the trials table beside a betas file that shares most entities with it and contradicts none."""
    own = entities(betas).items()
    tables = [
        path for path in files if path.parent == betas.parent and _is(path, "trials") and entities(path).items() <= own
    ]
    if not tables:
        raise InputError(
            f"{betas} has no trials table beside it: write {re.sub(r'_stat-effect.*', '_trials.tsv', betas.name)}, "
            "one row per volume, with a column 'image'."
        )
    return max(tables, key=lambda path: len(entities(path)))


def _tell_of_missing_betas(betas: list[Path], tables: list[Path]) -> None:
    """Warn of sessions that have a trials table of the task but no betas: a file may not have arrived."""
    tasks, sessions = ({entities(path).get(key) for path in betas} for key in ("task", "ses"))
    alone = [
        path for path in tables if entities(path).get("task") in tasks and entities(path).get("ses") not in sessions
    ]
    if alone:
        logger.warning("%d trials tables have no betas, such as %s: are files missing?", len(alone), alone[0])


def _like(betas: list[Path], paths: list[Path]) -> list[Path]:
    """Images in the space of the betas and on their grid; says how many are not."""
    space = entities(betas[0]).get("space")
    kept: list[Path] = []
    other: list[Path] = []
    belongs = _on_surface_of(betas[:2]) if is_on_surface(betas[0]) else _on_grid_of(betas[0])
    for path in paths:
        if not path.exists():
            logger.warning("%s is a link to a file that does not exist, and is left out: fetch it (datalad get)", path)
            continue
        in_space = space is None or entities(path).get("space", space) == space
        (kept if in_space and belongs(path) else other).append(path)
    if other:
        logger.info(
            "%d of %d masks, regions and maps are on another grid or surface or in another space than the betas: left "
            "out, such as %s",
            len(other),
            len(paths),
            other[0],
        )
    return kept


def _on_grid_of(betas: Path) -> Callable[[Path], bool]:
    own = NiftiFile(betas)

    def belongs(path: Path) -> bool:
        if is_on_surface(path):
            return False
        image = NiftiFile(path)
        return image.shape[:3] == own.shape[:3] and np.allclose(image.affine, own.affine, rtol=0, atol=1e-2)

    return belongs


def _on_surface_of(betas: list[Path]) -> Callable[[Path], bool]:
    """Files of a surface with as many vertices as these, a pair of hemispheres or a CIFTI file."""
    own = set().union(*map(_sizes, betas))
    return lambda path: is_on_surface(path) and bool(own & _sizes(path))


def _sizes(path: Path) -> set[int]:
    """Numbers of vertices that a file's hemispheres have."""
    if is_cifti(path):
        return {half.size for half in CiftiFile(path).surface.parts.values()}
    return {n_vertices(path)}


def _has_left(path: Path, betas: list[Path]) -> bool:
    """Whether this is the right hemisphere's file of a pair."""
    own = entities(path)
    return own.get("hemi") == "R" and any(entities(other) == own | {"hemi": "L"} for other in betas)


def _kind(path: Path) -> str:
    return ".gii or .mgh" if path.name.endswith(ENDINGS) else ".d*.nii" if is_on_surface(path) else ".nii.gz"


def _paths(value: Paths) -> list[Path]:
    return [Path(value)] if isinstance(value, str | Path) else list(map(Path, value))


def _only_one(paths: list[Path], option: str, what: str) -> list[Path]:
    """One file, or one of each hemisphere."""
    names = [{key: value for key, value in entities(path).items() if key != "hemi"} for path in paths]
    if len(paths) > 1 and not (len(paths) == 2 and names[0] == names[1] and "hemi" in entities(paths[0])):
        there = ", ".join(path.name for path in paths)
        raise InputError(f"there are {len(paths)} {what}, {there}: choose one by {option} (--{option}).")
    return paths


def _is_ncsnr(path: Path) -> bool:
    return _is(path, "statmap") and entities(path).get("stat") == "ncsnr"


def _is(path: Path, suffix: str) -> bool:
    ends = (".tsv",) if suffix == "trials" else IMAGE_ENDINGS
    return path.name.endswith(tuple(f"_{suffix}{end}" for end in ends))


def _options(key: str, values: list[str]) -> str:
    return ", ".join(f"{key}-{value}" if value else f"no {key}" for value in values)


def _number(label: str) -> tuple[int, str]:
    return (int(label), "") if label.isdecimal() else (-1, label)
