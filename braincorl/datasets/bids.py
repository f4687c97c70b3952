"""`load_bids`: a person from a folder of BIDS derivatives.

Betas are `sub-XX[_ses-YY]_task-ZZ[_space-…]_stat-effect[_desc-…]_statmap.nii.gz`, each with a trials table
`…_trials.tsv` beside it, whose name has the same entities or fewer. A mask is `…_mask.nii.gz` without a `label-`
entity; with one it is a region, and so is every label of a `…_dseg.nii.gz`. A map `…_stat-ncsnr…_statmap.nii.gz` gives
noise ceilings.

References
----------
Gorgolewski et al., The brain imaging data structure, Scientific Data 3 (2016); derivatives: bids-specification 1.9.
"""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from braincorl.datasets.load import open_subject
from braincorl.datasets.recording import Recording
from braincorl.datasets.subject import SubjectData
from braincorl.errors import InputError
from braincorl.files import Progress, read_json

logger = logging.getLogger(__name__)

Entities = dict[str, str]


def load_bids(
    root: str | Path,
    subject: str,
    *,
    task: str | None = None,
    space: str | None = None,
    desc: str | None = None,
    mask: str | Path | None = None,
    zscore: Literal["none", "session"] = "none",
    images: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read a person from BIDS derivatives.

    Parameters
    ----------
    root
        Folder with a `dataset_description.json`.
    subject
        Label, with or without `sub-`.
    task, space, desc
        Which betas, where there are several.
    mask
        Mask to use, where there are several.
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
    recording = open_bids(root, subject, task=task, space=space, desc=desc, mask=mask, zscore=zscore)
    return recording.load(images, progress)


def open_bids(
    root: str | Path,
    subject: str,
    *,
    task: str | None = None,
    space: str | None = None,
    desc: str | None = None,
    mask: str | Path | None = None,
    zscore: Literal["none", "session"] = "none",
) -> Recording:
    """Open a person of BIDS derivatives without reading the betas. Parameters and errors are those of `load_bids`.

    Returns
    -------
    Recording
    """
    root, label = Path(root), "sub-" + subject.removeprefix("sub-")
    check_description(root)
    if not (root / label).is_dir():
        there = ", ".join(sorted(path.name for path in root.glob("sub-*") if path.is_dir())) or "nobody"
        raise InputError(f"{root} holds no folder {label}, but {there}: check the label.")
    files = [path for path in sorted((root / label).rglob("sub-*")) if entities(path).get("sub") == label[4:]]
    betas = find_betas(files, {"task": task, "space": space, "desc": desc}, f"{root / label}")
    given = entities(betas[0]).get("space")
    near = [path for path in files if given is None or entities(path).get("space", given) == given]
    masks = [path for path in near if _is(path, "mask")]
    regions = [path for path in masks if "label" in entities(path)] + [path for path in near if _is(path, "dseg")]
    signal = [path for path in near if _is(path, "statmap") and entities(path).get("stat") == "ncsnr"]
    return open_subject(
        betas,
        [find_trials(path, files) for path in betas],
        mask or _one_mask([path for path in masks if "label" not in entities(path)]),
        rois=regions,
        zscore=zscore,
        ncsnr=signal[0] if signal else None,
        name=label,
    )


def entities(path: Path) -> Entities:
    """Entities of a BIDS file name, such as {"sub": "01", "task": "images"}."""
    return dict(part.split("-", 1) for part in path.name.split(".")[0].split("_") if "-" in part)


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


def find_betas(files: list[Path], wanted: dict[str, str | None], where: str) -> list[Path]:
    """Betas files of one task, space and description, in order of session and run.

    Raises
    ------
    InputError
        If there is none, or they differ in what `wanted` leaves open.
    """
    betas = [path for path in files if _is(path, "statmap") and entities(path).get("stat") == "effect"]
    if not betas:
        raise InputError(f"{where} holds no *_stat-effect_*statmap.nii.gz, the single-trial betas.")
    for key, value in wanted.items():
        found = sorted({entities(path).get(key, "") for path in betas})
        if value is not None:
            betas = [path for path in betas if entities(path).get(key, "") == value]
            if not betas:
                raise InputError(f"{where} holds no betas with {key}-{value}; there are {_options(key, found)}.")
        elif len(found) > 1:
            raise InputError(f"{where} holds betas of {_options(key, found)}: choose one by {key}.")
    return sorted(betas, key=lambda path: [_number(entities(path).get(key, "")) for key in ("ses", "run")])


def find_trials(betas: Path, files: list[Path]) -> Path:
    """Find the trials table beside a betas file that shares most entities with it and contradicts none.

    Raises
    ------
    InputError
        If there is none.
    """
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


def _one_mask(masks: list[Path]) -> Path | None:
    if len(masks) > 1:
        raise InputError(f"there are {len(masks)} masks, {', '.join(path.name for path in masks)}: choose one by mask.")
    return masks[0] if masks else None


def _is(path: Path, suffix: str) -> bool:
    ends = (".tsv",) if suffix == "trials" else (".nii.gz", ".nii")
    return path.name.endswith(tuple(f"_{suffix}{end}" for end in ends))


def _options(key: str, values: list[str]) -> str:
    return ", ".join(f"{key}-{value}" if value else f"no {key}" for value in values)


def _number(label: str) -> tuple[int, str]:
    return (int(label), "") if label.isdecimal() else (-1, label)
