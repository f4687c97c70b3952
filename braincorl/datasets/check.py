"""`check_dataset`: what of a public data set is in a folder, what is missing, and what looks wrong.

Nothing is changed. Headers, sizes, tables and the first trials of each person tell, and compressed images are read
through, for only the checksum at its end tells whether such a file is whole.
"""

import logging
import re
import struct
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np

from braincorl.datasets import algonauts, bold5000, laion_fmri, mosaic
from braincorl.datasets.betas.glmsingle import HDF5_SUFFIXES, MAT_SUFFIX, GlmsingleBetas
from braincorl.datasets.betas.nifti import KIND, NiftiFile
from braincorl.datasets.betas.streams import verify
from braincorl.datasets.bids import open_bids
from braincorl.datasets.nsd import design as nsd_design
from braincorl.datasets.nsd import layout as nsd_files
from braincorl.datasets.nsd.areas import FUNCTIONAL, RETINOTOPIC
from braincorl.datasets.nsd.person import open_nsd
from braincorl.datasets.trials.recording import Recording
from braincorl.errors import InputError
from braincorl.storage.files import walk_files

logger = logging.getLogger(__name__)

# Betas in % signal change vary by about one; hundreds mean that a factor of 300 was left in.
LARGEST_SPREAD = 50.0
TRIALS_LOOKED_AT = 20  # a spread to within a sixth, from the first block alone


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    level
        "ok", "note" (fine, but good to know), "missing" (a part that can be done without), or "wrong" (unusable so).
    text
        What, and what to do about it.
    """

    level: str
    text: str


Findings = Iterator[Finding]
CheckFile = Callable[[Path], Findings]


def check_dataset(root: str | Path, *, quick: bool = False) -> tuple[str, list[Finding]]:
    """Look at a folder of a public data set.

    Parameters
    ----------
    root
        The folder.
    quick
        Do not read compressed betas through: minutes for a large data set, and damage inside them goes unseen.

    Returns
    -------
    kind : str
        Name of the data set.
    findings : list of Finding

    Raises
    ------
    InputError
        If the folder does not exist, or looks like no known data set.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: pass the one that a data set was downloaded to.")
    for kind, (looks_like, check) in KINDS.items():
        if looks_like(root):
            if not quick:
                logger.info("compressed images are read through for the checksums at their ends, which takes a while")
            findings = list(check(root, _look_quickly if quick else _read_through))
            if quick:
                findings.append(Finding("note", "compressed images were not read through: damage in them goes unseen"))
            return kind, findings
    raise InputError(
        f"{root} looks like none of {', '.join(KINDS)}: expected nsddata and nsddata_betas, CSI1_brainmask.nii.gz, "
        "subj01/training_split, TYPED_FITHRF_GLMDENOISE_RR, or dataset_description.json in it."
    )


def _check_nsd(root: Path, check_volume_file: CheckFile) -> Findings:
    """Look at a copy of the Natural Scenes Dataset."""
    first = nsd_files.NsdFolder(root, 1)
    yield from _attempt("design (nsd_expdesign.mat)", lambda: _describe_design(first.design))
    if first.stimuli.is_file():
        yield from _attempt("table of stimuli", lambda: f"{len(nsd_design.read_stimuli(first.stimuli))} stimuli")
    else:
        yield Finding("missing", f"{first.stimuli}: needed to know the shared images; download it")
    folders = sorted((root / "nsddata_betas").glob("ppdata/subj0[1-8]/func*/betas_*"))
    if not folders:
        yield Finding("wrong", f"{root}/nsddata_betas/ppdata/subjXX/func1pt8mm/betas_…: no betas of any subject")
    for path in folders:
        folder = nsd_files.NsdFolder(root, int(path.parts[-3][-1]), path.parts[-2], path.name)
        yield from _check_nsd_subject(folder, check_volume_file)


def _check_bold5000(root: Path, check_volume_file: CheckFile) -> Findings:
    """Look at a copy of BOLD5000, release 2.0."""
    below = bold5000.files_below(root)
    masks = {path.name[3] for path in below if fnmatch(path.name, "CSI[1-4]_*")}
    for subject in sorted(map(int, masks)):
        label, total = f"CSI{subject}", bold5000.N_SESSIONS[subject - 1]
        files = {
            int(found.group(1)): path
            for path in below
            if fnmatch(path.name, f"{label}_GLMbetas-{bold5000.PREPARATION}_ses-*.nii*")
            and (found := re.search(r"_ses-(\d+)", path.name))
        }
        yield from _check_sessions(label, sorted(files), total)
        unbroken = [n for n in range(1, total + 1) if set(range(1, n + 1)) <= set(files)]
        recording = yield from _attempt_open(
            label, partial(bold5000.open_bold5000, root, subject, sessions=unbroken or None)
        )
        for path in files.values():
            yield from check_volume_file(path)
        if recording is None:
            continue
        grid = recording.grid
        if grid is not None and grid.mask.shape != bold5000.GRIDS[subject - 1]:
            yield Finding("note", f"{label}: grid {grid.mask.shape}, the release has {bold5000.GRIDS[subject - 1]}")
        odd = [s.path.name for s in recording.sources if s.n_trials % bold5000.RUN_TRIALS]
        if odd:
            yield Finding("note", f"{label}: {len(odd)} sessions are no whole runs of {bold5000.RUN_TRIALS} trials")
        lacking = [region for region in bold5000.REGIONS if region not in recording.rois]
        if lacking:
            yield Finding("missing", f"{label}: region masks of {', '.join(lacking)} (sub-{label}_mask-LH….nii.gz)")


def _check_algonauts(root: Path, _: CheckFile) -> Findings:
    """Look at a copy of the Algonauts 2023 challenge."""
    for folder in sorted(root.glob("subj0[1-8]")):
        recording = yield from _attempt_open(
            folder.name, partial(algonauts.open_algonauts2023, root, int(folder.name[-1]))
        )
        if recording is None:
            continue
        if recording.surface is None:
            yield Finding(
                "missing", f"{folder.name}: roi_masks/?h.all-vertices_fsaverage_space.npy; without them no maps"
            )
        elif recording.surface.left.size != algonauts.FSAVERAGE_VERTICES:
            yield Finding("note", f"{folder.name}: {recording.surface.left.size} vertices, fsaverage has 163842")
        if not recording.rois:
            yield Finding("missing", f"{folder.name}: roi_masks/mapping_*.npy; no regions without them")


def _check_bids(root: Path, check_volume_file: CheckFile) -> Findings:
    """Look at BIDS derivatives."""
    if not (root / "dataset_description.json").is_file():
        yield Finding("missing", 'dataset_description.json: write one with "DatasetType": "derivative"')
    for folder in sorted(path for path in root.glob("sub-*") if path.is_dir()):
        yield from _attempt_open(folder.name, partial(open_bids, root, folder.name))
        for path in walk_files(folder):
            if fnmatch(path.name, "sub-*_stat-effect_*statmap.nii*"):
                yield from check_volume_file(path)


def _check_laion_fmri(root: Path, check_volume_file: CheckFile) -> Findings:
    """Look at a copy of LAION-fMRI."""
    held = ", ".join(map(str, laion_fmri.HELD_BACK))
    for path in sorted((root / laion_fmri.BETAS).glob("sub-*")):
        if not path.is_dir():
            continue
        try:
            folder = laion_fmri.LaionFolder(root, path.name)
        except InputError as error:
            yield Finding("wrong", str(error))
            continue
        there = folder.sessions()
        lacking = sorted(set(range(1, max(there, default=0) + 1)) - set(there) - set(laion_fmri.HELD_BACK))
        if lacking:
            yield Finding("missing", f"{path.name}: sessions {', '.join(map(str, lacking))}; download them")
        yield from _attempt_open(path.name, partial(laion_fmri.open_laion_fmri, root, path.name))
        for number in there:
            yield from check_volume_file(folder.session(number)[0])
        if not any(folder.ceiling(desc).exists() for desc in laion_fmri.CEILINGS):
            yield Finding(
                "missing", f"{path.name}: noise ceilings over sessions ({folder.ceiling('Noiseceiling4rep')})"
            )
        if not folder.regions.is_dir():
            yield Finding("missing", f"{path.name}: regions ({folder.regions})")
        if held_there := [n for n in laion_fmri.HELD_BACK if folder.session(n)[0].exists()]:
            yield Finding("note", f"{path.name}: sessions {held_there} are among those held back ({held}); not read")
    yield Finding("note", f"sessions {held} are held back by the data set: nobody has them")


def _check_mosaic(root: Path, _: CheckFile) -> Findings:
    """Look at files of MOSAIC."""
    folder = root / mosaic.BETAS
    paths = sorted(folder.glob("*/sub-*.hdf5") if folder.is_dir() else root.glob("sub-*_*.hdf5"))
    for path in paths:
        label = re.sub(r"_crc32-[0-9A-Fa-f]+$", "", path.stem)
        try:
            person = mosaic.MosaicPerson.of_label(label)
        except InputError as error:
            yield Finding("wrong", str(error))
            continue
        recording = yield from _attempt_open(
            label, partial(mosaic.open_mosaic, path, person.dataset, person.number, voxels="cortex")
        )
        if recording is not None:
            yield from _attempt(f"{label}, split", partial(_describe_split, path, person))
            if recording.ncsnr is None:
                yield Finding("missing", f"{label}: noise ceilings of single trials; they are estimated from repeats")
    if folder.is_dir() and not (root / "stimulus_info").is_dir():
        yield Finding("missing", f"{root / 'stimulus_info'}: tables of stimuli")


def _describe_split(path: Path, person: mosaic.MosaicPerson) -> str:
    split = mosaic.split_mosaic(path, person.dataset, person.number)
    return f"{split.own.size} images to learn from, {split.test.size} to test on"


def _check_glmsingle(root: Path, _: CheckFile) -> Findings:
    """Look at GLMsingle's output."""
    for path in sorted(root.glob("TYPE*")):
        if path.suffix in (".npy", MAT_SUFFIX, *HDF5_SUFFIXES) and path.name.startswith(("TYPEB", "TYPEC", "TYPED")):
            yield from _attempt(path.name, partial(_describe_glmsingle, path))
    yield Finding("note", "pass these files to --betas, with a table of what each trial showed to --trials")


def _check_nsd_subject(folder: nsd_files.NsdFolder, check_volume_file: CheckFile) -> Findings:
    label = f"{folder.label} {folder.space} {folder.preparation}"
    there = folder.sessions()
    yield from _check_sessions(label, there, folder.n_sessions)
    if not folder.ncsnr[0].is_file():
        yield Finding("missing", f"{label}: ncsnr.nii.gz; noise ceilings will be estimated from repeats instead")
    atlases = [atlas for atlas in (RETINOTOPIC, *FUNCTIONAL) if not list(folder.regions.glob(f"*{atlas}.nii.gz"))]
    if atlases:
        yield Finding(
            "missing", f"{label}: {', '.join(atlases)} in {folder.regions}; the higher-visual voxels need all five"
        )
    for atlas in (RETINOTOPIC, *FUNCTIONAL):
        if atlas not in atlases and folder.color_table(atlas) is None:
            yield Finding("note", f"{label}: no {atlas}.mgz.ctab; the published names of its regions are used")
    if not there:
        return
    recording = yield from _attempt_open(
        label,
        lambda: open_nsd(
            folder.root,
            folder.subject,
            voxels="all",
            sessions=there,
            space=folder.space,
            preparation=folder.preparation,
        ),
    )
    known = nsd_files.GRIDS.get(folder.space)
    if recording is not None and recording.grid is not None and known is not None:
        shape = recording.grid.mask.shape
        if shape != known[folder.subject - 1]:
            whose = [f"subj{s + 1:02d}" for s, grid in enumerate(known) if grid == shape]
            yield Finding(
                "note" if not whose else "wrong",
                f"{label}: grid {shape}, but this subject's is {known[folder.subject - 1]}"
                + (f"; these are files of {', '.join(whose)}" if whose else ""),
            )
    for number in there:
        for path in folder.session(number):
            yield from check_volume_file(path)


def _check_sessions(label: str, there: list[int], total: int) -> Findings:
    lacking = [number for number in range(1, total + 1) if number not in there]
    if not there:
        yield Finding("wrong", f"{label}: no session of the betas; download them")
    elif lacking:
        shown = ", ".join(map(str, there))
        text = f"{label}: {len(lacking)} of {total} sessions; there are {shown}: download the others, or pass sessions"
        yield Finding("missing", text)


def _attempt(label: str, look: Callable[[], str]) -> Findings:
    try:
        yield Finding("ok", f"{label}: {look()}")
    except InputError as error:
        yield Finding("wrong", f"{label}: {error}")


def _attempt_open(label: str, open_: Callable[[], Recording]) -> Generator[Finding, None, Recording | None]:
    try:
        recording = open_()
        spread, zeros = _look_at_values(recording)
    except InputError as error:
        yield Finding("wrong", f"{label}: {error}")
        return None
    sessions = len({name for table in recording.tables for name in np.unique(table.sessions).tolist()})
    yield Finding(
        "ok",
        f"{label}: {recording.n_trials} trials of {recording.image_ids().size} images in {sessions} sessions, "
        f"{recording.n_voxels} voxels, {len(recording.rois)} regions",
    )
    if spread > LARGEST_SPREAD:
        yield Finding(
            "wrong", f"{label}: responses spread by {spread:.0f}, too much for % signal change: a scale is left in"
        )
    if zeros > 0.5:
        yield Finding("note", f"{label}: {zeros:.0%} of the voxels are 0 or not finite in the first trials")
    return recording


def _look_at_values(recording: Recording) -> tuple[float, float]:
    """Typical spread over the first trials, and the share of voxels without any."""
    _, chunk = next(iter(recording.sources[0].chunks()))
    with np.errstate(invalid="ignore"):
        spread = np.nan_to_num(chunk[:TRIALS_LOOKED_AT].std(axis=0))
    alive = spread > 0
    return (float(np.median(spread[alive])) if alive.any() else 0.0), float(1 - alive.mean())


def _read_through(path: Path) -> Findings:
    """Look whether a NIfTI file is whole and undamaged, as far as it can tell."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return
    try:
        NiftiFile(path)
        verify(path, KIND)
    except InputError as error:
        yield Finding("wrong", str(error))


def _look_quickly(path: Path) -> Findings:
    """Look whether a NIfTI file is as long as its header says, without decompressing it."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return
    try:
        expected = NiftiFile(path).n_bytes
    except InputError as error:
        yield Finding("wrong", str(error))
        return
    if path.suffix == ".gz":
        with path.open("rb") as file:
            file.seek(-4, 2)
            actual = struct.unpack("<I", file.read(4))[0]  # a complete gzip file ends with its length, modulo 2^32
        if actual != expected % 2**32:
            yield Finding("wrong", f"{path} is truncated: it ends too early for its header; download it again")


def _describe_glmsingle(path: Path) -> str:
    betas = GlmsingleBetas(path, None)
    return f"{betas.n_trials} trials, {betas.n_voxels} voxels"


def _describe_design(path: Path) -> str:
    design = nsd_design.read_design(path)
    return f"{design.order.size} trials, {design.images.shape[1]} images of each of {design.images.shape[0]} subjects"


# In this order: the first whose files are there counts. BIDS stands last, since any sub-*/ looks like it.
KINDS: dict[str, tuple[Callable[[Path], bool], Callable[[Path, CheckFile], Findings]]] = {
    "NSD": (lambda root: (root / "nsddata").is_dir() or (root / "nsddata_betas").is_dir(), _check_nsd),
    "Algonauts 2023": (lambda root: any(root.glob("subj0[1-8]/training_split")), _check_algonauts),
    "BOLD5000": (lambda root: any(fnmatch(path.name, "CSI[1-4]_*") for path in walk_files(root)), _check_bold5000),
    "LAION-fMRI": (lambda root: (root / laion_fmri.BETAS).is_dir(), _check_laion_fmri),
    "MOSAIC": (
        lambda root: (root / mosaic.BETAS).is_dir() or any(root.glob("sub-[0-9]*_*.hdf5")),
        _check_mosaic,
    ),
    "GLMsingle": (lambda root: any(root.glob("TYPE[BCD]_*")), _check_glmsingle),
    "BIDS derivatives": (
        lambda root: (root / "dataset_description.json").is_file() or any(root.glob("sub-*/")),
        _check_bids,
    ),
}
