"""`load_algonauts2023`: a subject of the Algonauts 2023 challenge, NSD on the vertices of fsaverage.

The arrays are already z-scored within session and averaged over repeats, and how often an image was shown is not said:
each response counts as one trial, and there are no noise ceilings. Label names are in pickled dictionaries, which are
read without running what is in them.

References
----------
Gifford et al., The Algonauts Project 2023 Challenge: How the Human Brain Makes Sense of Natural Scenes,
arXiv 2301.03198 (2023).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.beta_files import ArrayBetas
from braincorl.datasets.betas.grids import as_labels, as_mask
from braincorl.datasets.betas.safe_pickle import load_pickled_npy
from braincorl.datasets.space import Surface
from braincorl.datasets.subject import SubjectData
from braincorl.datasets.trials.labels import Labels, regions_of
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.rois import Rois, names_among
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import Progress, reading

N_SUBJECTS = 8  # those of NSD
FSAVERAGE_VERTICES = 163_842  # of one hemisphere, at FreeSurfer's full resolution
SIDES = ("lh", "rh")


def load_algonauts2023(
    root: str | Path,
    subject: int,
    *,
    voxels: str | Iterable[str] = "all",
    images: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read a subject of the Algonauts 2023 challenge.

    Parameters
    ----------
    root
        Folder that holds `subj01` to `subj08`.
    subject
        1 to 8.
    voxels
        "all" vertices of the challenge, or a region's or atlas's name or several.
    images
        Images to keep; by default all.
    progress
        Called with (images read, images in all).

    Returns
    -------
    SubjectData
        `image_ids` are file names such as `train-0001_nsd-00013.png`. The space is on fsaverage where the masks of all
        vertices are there; every response counts as one trial.

    Raises
    ------
    InputError
        If files are missing or do not fit together.
    FileFormatError
        If a file is damaged.
    """
    return open_algonauts2023(root, subject, voxels=voxels).load(images, progress)


def open_algonauts2023(root: str | Path, subject: int, *, voxels: str | Iterable[str] = "all") -> Recording:
    """Open a subject without reading its responses. Parameters and errors are those of `load_algonauts2023`.

    Returns
    -------
    Recording
    """
    if subject not in range(1, N_SUBJECTS + 1):
        raise InputError(f"subject must be 1 to {N_SUBJECTS}, but is {subject!r}.")
    folder = Path(root) / f"subj{subject:02d}"
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: pass the one that holds subj01 to subj08.")
    halves = tuple(ArrayBetas(_responses(folder, side)) for side in SIDES)
    names = _read_image_names(folder)
    for half in halves:
        if half.n_trials != len(names):
            raise InputError(
                f"{half.path} has {half.n_trials} rows for {len(names)} training images: a file is missing or damaged."
            )
    counts = tuple(half.n_voxels for half in halves)
    rois = _read_regions(folder / "roi_masks", counts)
    surface = _read_surface(folder / "roi_masks", counts)
    chosen = _choose(voxels, rois, sum(counts))
    if surface is not None and not chosen.all():
        surface = surface.select(chosen)
    return Recording(
        name=f"sub-{subject:02d}",
        sources=[_HemispheresBetas(halves, chosen)],
        tables=[TrialsTable(np.asarray(names, dtype=np.str_), np.full(len(names), ""))],
        zscore=False,
        surface=surface,
        rois={name: members[chosen] for name, members in rois.items() if members[chosen].any()},
        options={"data set": "algonauts2023"},
    )


class _HemispheresBetas:
    """Chosen columns of two arrays (n_images, n_vertices) side by side, left hemisphere first."""

    def __init__(self, halves: tuple[ArrayBetas, ...], chosen: npt.NDArray[np.bool_]) -> None:
        self._halves, self._chosen = halves, chosen
        self.paths = tuple(half.path for half in halves)
        self.path, self.n_trials, self.n_voxels = halves[0].path, halves[0].n_trials, int(chosen.sum())

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first image, responses (n, n_vertices)) in order."""
        step = min(half.step for half in self._halves)
        for start in range(0, self.n_trials, step):
            rows = [half.rows(start, start + step) for half in self._halves]
            yield start, np.concatenate(rows, axis=1)[:, self._chosen]


def _read_image_names(folder: Path) -> list[str]:
    """Names of a subject's training images, in the order of the responses."""
    pictures = folder / "training_split" / "training_images"
    names = sorted(path.name for path in pictures.glob("train-*_nsd-*.*")) if pictures.is_dir() else []
    if not names:
        raise InputError(f"{pictures} holds no train-XXXX_nsd-XXXXX.png: the names say which image each row is.")
    return names


def _responses(folder: Path, side: str) -> Path:
    return folder / "training_split" / "training_fmri" / f"{side}_training_fmri.npy"


def _read_regions(folder: Path, counts: tuple[int, ...]) -> Rois:
    labels: dict[str, Labels] = {}
    names: dict[str, dict[int, str]] = {}
    for path in sorted(folder.glob("mapping_*.npy")):
        atlas = path.stem.removeprefix("mapping_")
        halves = []
        for side, count in zip(SIDES, counts, strict=True):
            file = folder / f"{side}.{atlas}_challenge_space.npy"
            values = _numbers(file, "a label per vertex")
            if values.shape != (count,):
                other = " It looks like the other hemisphere's." if values.shape == (sum(counts) - count,) else ""
                raise InputError(f"{file} has shape {values.shape} for {count} vertices of the responses.{other}")
            halves.append(as_labels(values, file))
        labels[atlas] = np.concatenate(halves)
        names[atlas] = _mapping(path)
    return regions_of(labels, names)


def _numbers(path: Path, expected: str) -> npt.NDArray[Any]:
    """Read an array of numbers; lists of lists in a pickle may be none."""
    with reading(path, f"holds no array of numbers, expected {expected}"):
        values = np.asarray(load_pickled_npy(path))
    if values.dtype.kind not in "fiub":
        raise FileFormatError(f"{path} holds values of type {values.dtype}, expected {expected}.")
    return values


def _mapping(path: Path) -> dict[int, str]:
    content = load_pickled_npy(path)
    if not isinstance(content, dict):
        raise FileFormatError(f"{path} holds no dictionary of label names.")
    try:
        return {int(label): str(name) for label, name in content.items() if int(label) > 0}
    except (TypeError, ValueError, OverflowError) as error:
        raise FileFormatError(f"{path}: labels must be whole numbers ({error}).") from error


def _read_surface(folder: Path, counts: tuple[int, ...]) -> Surface | None:
    paths = [folder / f"{side}.all-vertices_fsaverage_space.npy" for side in SIDES]
    if not all(path.is_file() for path in paths):
        return None
    masks = []
    for path, count in zip(paths, counts, strict=True):
        mask = as_mask(_numbers(path, "0 and 1"), path, may_be_empty=True)
        if mask.ndim != 1 or int(mask.sum()) != count:
            other = " It looks like the other hemisphere's." if int(mask.sum()) == sum(counts) - count else ""
            raise InputError(f"{path} marks {int(mask.sum())} vertices, but the responses have {count}.{other}")
        masks.append(mask)
    return Surface(masks[0], masks[1])


def _choose(voxels: str | Iterable[str], rois: Rois, n_vertices: int) -> npt.NDArray[np.bool_]:
    if voxels == "all":
        return np.ones(n_vertices, dtype=bool)
    names = names_among(voxels, rois, f"'all' or regions among {', '.join(rois)}")
    return np.asarray(np.any([rois[name] for name in names], axis=0))
