"""`fetch_nsd`: the files that a person of the Natural Scenes Dataset needs, from its public bucket.

The bucket answers without an account, in the region us-east-2, as public code that downloads from it has it. NSD asks
everyone to accept its data access agreement all the same; so nothing is downloaded unless the caller says so.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from braincorl.datasets.download.bucket import Bucket, RemoteFile
from braincorl.datasets.download.downloads import Downloads
from braincorl.datasets.nsd.areas import CORTICAL
from braincorl.datasets.nsd.layout import PREPARATION, SPACES, NsdFolder, check_space, check_subject, in_runs
from braincorl.errors import InputError
from braincorl.storage.files import Progress

logger = logging.getLogger(__name__)

BUCKET, REGION = "natural-scenes-dataset", "us-east-2"
CONTAINERS = (".nii.gz", ".hdf5")
MOST_PARALLEL = 16  # more connections at once are discourteous

TERMS = """Terms of the Natural Scenes Dataset (NSD)

NSD is free for those who accept its Data Access Agreement: read it, and hand in its form, at
    https://naturalscenesdataset.org
What is written there counts; braincorl neither holds the data nor grants any right to them.
Whoever publishes with NSD cites Allen et al., A massive 7T fMRI dataset to bridge cognitive neuroscience and
artificial intelligence, Nature Neuroscience 25 (2022). The images are from COCO, which has terms of its own:
    https://cocodataset.org/#termsofuse
"""


@dataclass(frozen=True)
class NsdSelection:
    """Which files of NSD; the fields are parameters of `fetch_nsd`.

    Raises
    ------
    InputError
        If NSD has no such thing.
    """

    subjects: tuple[int, ...]
    sessions: tuple[int, ...] | None = None
    space: str = SPACES[0]
    preparation: str = PREPARATION
    container: str = CONTAINERS[0]
    images: bool = False

    def __post_init__(self) -> None:
        if not self.subjects:
            raise InputError("subjects is empty: name at least one of 1 to 8.")
        check_space(self.space)
        if self.container not in CONTAINERS:
            raise InputError(f"container must be '.nii.gz' or '.hdf5', but is {self.container!r}.")
        for subject, folder in zip(self.subjects, self.folders(), strict=True):
            check_subject(subject)
            folder.wanted_sessions(self.sessions)

    def folders(self) -> list[NsdFolder]:
        """Paths of every subject's files in the bucket."""
        return [NsdFolder(Path(), subject, self.space, self.preparation) for subject in self.subjects]


def fetch_nsd(
    root: str | Path,
    subjects: int | Iterable[int],
    *,
    sessions: Iterable[int] | None = None,
    space: str = "func1pt8mm",
    preparation: str = PREPARATION,
    container: str = ".nii.gz",
    images: bool = False,
    accept_terms: bool = False,
    parallel: int = 4,
    endpoint_url: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Download what `load_nsd` reads of some subjects: betas, noise ceilings, regions, design, table of stimuli.

    What is complete is left alone, and a download that was stopped goes on where it was. Needs
    `pip install braincorl[fetch]`.

    Parameters
    ----------
    root
        Folder to mirror the bucket in, for `load_nsd`.
    subjects
        1 to 8, one or several.
    sessions
        Which sessions, from 1; by default all that a subject completed.
    space
        "func1pt8mm", "func1mm" or "fsaverage".
    preparation
        Which betas: `betas_fithrf_GLMdenoise_RR`, `betas_fithrf` or `betas_assumehrf`.
    container
        ".nii.gz", which is smaller, or ".hdf5", which is read faster; volume betas have both.
    images
        The 73,000 stimuli, too (37 GB).
    accept_terms
        That you have read and accepted NSD's terms (`braincorl.datasets.nsd.fetching.TERMS`).
    parallel
        Files at a time, 1 to 16.
    endpoint_url
        Another server that speaks S3; by default Amazon's.
    progress
        Called with (bytes there, bytes in all).

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If the terms are not accepted, boto3 is not installed, or the bucket lacks a file or cannot be read.
    OutputError
        If the disk is too small, or a file is in the way.
    """
    if not accept_terms:
        raise InputError(
            "NSD is for those who accept its Data Access Agreement (https://naturalscenesdataset.org): do so, and pass "
            "accept_terms=True."
        )
    chosen = (subjects,) if isinstance(subjects, int) else tuple(sorted(set(subjects)))
    selection = NsdSelection(
        chosen, None if sessions is None else tuple(sessions), space, preparation, container, images
    )
    downloads = plan_nsd(root, selection, parallel=parallel, endpoint_url=endpoint_url)
    return downloads.run(parallel=parallel, progress=progress)


def plan_nsd(
    root: str | Path, selection: NsdSelection, *, parallel: int = 4, endpoint_url: str | None = None
) -> Downloads:
    """Look up what of a selection is to be downloaded, and what of it is there.

    Parameters
    ----------
    root, parallel, endpoint_url
        As for `fetch_nsd`.
    selection
        Which files.

    Returns
    -------
    Downloads

    Raises
    ------
    InputError
        If boto3 is not installed, or the bucket lacks a file or cannot be read.
    OutputError
        If a file is in the way.
    """
    if parallel not in range(1, MOST_PARALLEL + 1):
        raise InputError(f"parallel must be 1 to {MOST_PARALLEL}, but is {parallel!r}.")
    bucket = Bucket(BUCKET, REGION, endpoint_url=endpoint_url, connections=parallel)
    files = _experiment(bucket, selection.folders()[0], selection.images)
    for folder in selection.folders():
        files += _regions(bucket, folder)
        files += _betas(bucket, folder, folder.wanted_sessions(selection.sessions), selection.container)
    return Downloads(bucket, list(dict.fromkeys(files)), Path(root))


def _experiment(bucket: Bucket, folder: NsdFolder, images: bool) -> list[RemoteFile]:
    """Files that all subjects share."""
    listed = _listed(bucket, folder.design.parent)
    wanted = [folder.design, folder.stimuli]
    if images:
        listed = {**listed, **_listed(bucket, folder.pictures.parent)}
        wanted.append(folder.pictures)
    missing = [path.as_posix() for path in wanted if path not in listed]
    if missing:
        raise InputError(f"the bucket {bucket.name} lacks {', '.join(missing)}: is it a mirror of NSD's?")
    return [listed[path] for path in wanted]


def _regions(bucket: Bucket, folder: NsdFolder) -> list[RemoteFile]:
    """Label volumes and colour tables, as far as the bucket has them; the surface is read without."""
    if folder.space == "fsaverage":
        return []
    listed = _listed(bucket, folder.regions)
    tables = [folder.color_tables(atlas) for atlas in CORTICAL]
    for parent in dict.fromkeys(path.parent for paths in tables for path in paths):
        listed |= _listed(bucket, parent)
    files, missing = [], []
    for atlas, places in zip(CORTICAL, tables, strict=True):
        volumes = _first(listed, folder.atlas_forms(atlas))
        files += volumes + _first(listed, [[place] for place in places])
        missing += [] if volumes else [atlas]
    if missing:
        logger.warning("%s: the bucket lacks the regions %s", folder.label, ", ".join(missing))
    return files


def _betas(bucket: Bucket, folder: NsdFolder, sessions: Sequence[int], container: str) -> list[RemoteFile]:
    """Betas of the sessions, and the map of noise ceilings."""
    listed = _listed(bucket, folder.betas)
    files = _first(listed, [folder.ncsnr])
    if not files:
        logger.warning("%s: the bucket lacks %s; ceilings will rest on repeats", folder.label, folder.ncsnr[0].name)
    missing = []
    for number in sessions:
        forms = folder.session_forms(number)
        if folder.space != "fsaverage":
            forms = [form for form in forms if form[0].name.endswith(container)]
        found = _first(listed, forms)
        files += found
        missing += [] if found else [number]
    if missing:
        raise InputError(
            f"the bucket {bucket.name} has no {container} betas of {folder.label}'s sessions {in_runs(missing)} in "
            f"{folder.betas.as_posix()}: choose other sessions, or check space and preparation."
        )
    return files


def _listed(bucket: Bucket, folder: Path) -> dict[Path, RemoteFile]:
    """Files of the bucket below a folder, by path."""
    return {Path(key): file for key, file in bucket.files(folder.as_posix() + "/").items()}


def _first(listed: Mapping[Path, RemoteFile], forms: Iterable[list[Path]]) -> list[RemoteFile]:
    """Of several ways to store the same, the first that the bucket has."""
    return next(([listed[path] for path in paths] for paths in forms if all(path in listed for path in paths)), [])
