"""Files laid out like the Natural Scenes Dataset, from known responses: to try a pipeline before the download.

SIMULATION: designs are drawn, images do not exist. The containers are real: int16 NIfTI or HDF5 (trials, Z, Y, X), a
MATLAB design that counts from 1, the table of 73,000 stimuli, label volumes with colour tables.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.io import savemat

from braincorl.datasets.nsd.design import Design
from braincorl.datasets.nsd.layout import N_SESSIONS, N_STIMULI, NsdFolder

N_SHARED, N_IMAGES, REPEATS = 1000, 10_000, 3


def write_nsd_design(root: str | Path, random_state: int = 0) -> Design:
    """Write `nsd_expdesign.mat` and `nsd_stim_info_merged.csv` of a drawn experiment.

    Parameters
    ----------
    root
        Folder to mirror the bucket.
    random_state
        Seed.

    Returns
    -------
    Design
        What was written, counted from 0.
    """
    rng = np.random.default_rng(random_state)
    order = rng.permutation(np.arange(N_IMAGES).repeat(REPEATS))
    stimuli = rng.permutation(N_STIMULI)
    shared, own = np.sort(stimuli[:N_SHARED]), stimuli[N_SHARED:].reshape(len(N_SESSIONS), -1)
    images = np.concatenate([np.tile(shared, (len(N_SESSIONS), 1)), np.sort(own, axis=1)], axis=1)
    folder = NsdFolder(Path(root), 1)
    folder.design.parent.mkdir(parents=True, exist_ok=True)
    content = {"masterordering": order[None] + 1, "subjectim": images + 1, "sharedix": shared[None] + 1}
    savemat(folder.design, {name: values.astype(np.uint32) for name, values in content.items()}, do_compression=True)
    _stimulus_table(order, images, shared).to_csv(folder.stimuli)
    return Design(order, images)


def write_nsd_session(
    folder: NsdFolder,
    number: int,
    betas: npt.NDArray[np.floating[Any]],
    mask: npt.NDArray[np.bool_],
    affine: npt.NDArray[np.float64],
    container: str = ".nii.gz",
) -> Path:
    """Write one session of volume betas: int16, 300 times the % signal change.

    Parameters
    ----------
    folder
        Which subject, space and preparation.
    number
        Session, from 1.
    betas
        % signal change (750, n_voxels); what is outside the mask gets 0, as invalid voxels do.
    mask
        3-D bool (X, Y, Z).
    affine
        Voxel indices to millimetres (4, 4).
    container
        ".nii.gz", ".nii" or ".hdf5".

    Returns
    -------
    Path
    """
    path = folder.betas / f"betas_session{number:02d}{container}"
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.zeros((*mask.shape, len(betas)), dtype=np.int16, order="F")
    stored[mask] = np.clip(np.round(betas * 300.0), -32768, 32767).T
    if container == ".hdf5":
        with h5py.File(path, "w") as file:
            file["betas"] = stored.T  # MATLAB's (X, Y, Z, trials), as every other language sees it
    else:
        nib.save(nib.Nifti1Image(stored, affine), path)
    return path


def write_nsd_labels(
    folder: NsdFolder,
    atlas: str,
    labels: npt.NDArray[np.integer[Any]],
    affine: npt.NDArray[np.float64],
    names: Mapping[int, str],
) -> Path:
    """Write a label volume and its colour table.

    Parameters
    ----------
    folder
        Which subject and space.
    atlas
        Name, such as "prf-visualrois"; "lh." or "rh." in front is a hemisphere.
    labels
        (X, Y, Z): -1 not cortex, 0 no label, above 0 labels.
    affine
        Voxel indices to millimetres (4, 4).
    names
        Label -> name.

    Returns
    -------
    Path
        The label volume.
    """
    path = folder.regions / f"{atlas}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels.astype(np.int16), affine), path)
    table = folder.root / "nsddata" / "freesurfer" / folder.label / "label"
    table.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{label} {name}\n" for label, name in ({0: "Unknown"} | dict(names)).items())
    (table / f"{atlas.removeprefix('lh.').removeprefix('rh.')}.mgz.ctab").write_text(rows, encoding="utf-8")
    return path


def write_nsd_ncsnr(
    folder: NsdFolder,
    ncsnr: npt.NDArray[np.floating[Any]],
    mask: npt.NDArray[np.bool_],
    affine: npt.NDArray[np.float64],
) -> Path:
    """Write the map of noise ceiling signal-to-noise ratios of a mask's voxels (n_voxels,), 0 elsewhere."""
    path = folder.ncsnr[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = np.zeros(mask.shape, dtype=np.float32)
    volume[mask] = ncsnr
    nib.save(nib.Nifti1Image(volume, affine), path)
    return path


def _stimulus_table(
    order: npt.NDArray[np.int64], images: npt.NDArray[np.int64], shared: npt.NDArray[np.int64]
) -> pd.DataFrame:
    """Table of stimuli with the trial (from 1) of each of their repeats, 0 where a subject did not see them."""
    columns: dict[str, Any] = {
        "cocoId": np.arange(N_STIMULI) + 100_000,
        "cocoSplit": "train2017",
        "cropBox": "(0, 0, 0, 0)",
        "loss": 0.0,
        "nsdId": np.arange(N_STIMULI),
        "flagged": False,
        "BOLD5000": False,
        "shared1000": np.isin(np.arange(N_STIMULI), shared),
    }
    trials = np.argsort(order, kind="stable").reshape(N_IMAGES, REPEATS) + 1
    for subject in range(len(N_SESSIONS)):
        repeats = np.zeros((N_STIMULI, REPEATS), dtype=np.int64)
        repeats[images[subject]] = trials
        columns[f"subject{subject + 1}"] = (repeats[:, 0] > 0).astype(np.int64)
        columns |= {f"subject{subject + 1}_rep{repeat}": repeats[:, repeat] for repeat in range(REPEATS)}
    return pd.DataFrame(columns)
