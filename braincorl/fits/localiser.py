"""Regions that attention to remembered voxels suggests: a functional localiser without a localiser scan.

An encoder whose prior knows regions says for every voxel how probably it is like the voxels of each
(`region_probability_`). That is likeness of tuning, learned from a few images; it knows nothing of anatomy, and a voxel
outside all regions is still like some of them.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl import __version__
from braincorl.datasets.betas.grids import read_volume
from braincorl.datasets.space import VoxelSpace
from braincorl.encoders.attending import AttendingEncoder
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import OutputError
from braincorl.fits.maps import Outside, save_map, unmask
from braincorl.names import file_labels
from braincorl.storage.files import GENERATOR, atomic_file, write_json

# Below this the likeliest region is not named in the `dseg`: more likely than all others together.
LIKELY = 0.5


def region_probability(encoder: LinearEncoder) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.floating]] | None:
    """Names of regions (n_regions,) and probabilities (n_voxels, n_regions); None where the encoder knows no region."""
    if not isinstance(encoder, AttendingEncoder) or not hasattr(encoder, "region_names_"):
        return None
    return (encoder.region_names_, encoder.region_probability_) if encoder.region_names_.size else None


def likely_regions(names: npt.NDArray[np.str_], probability: npt.NDArray[np.floating]) -> pd.DataFrame:
    """Count the voxels that are likely of each region.

    Parameters
    ----------
    names
        (n_regions,).
    probability
        (n_voxels, n_regions).

    Returns
    -------
    pandas.DataFrame
        `index` (of the region in the `dseg`, from 1), `name`, `n_voxels` (more probably of it than of all others
        together), `probability_mean` (over all voxels).
    """
    likely = probability > LIKELY
    return pd.DataFrame(
        {
            "index": np.arange(1, names.size + 1),
            "name": names,
            "n_voxels": likely.sum(axis=0),
            "probability_mean": probability.mean(axis=0).round(4),
        }
    )


def write_localiser(
    folder: Path, prefix: str, encoder: LinearEncoder, space: VoxelSpace, outside: Outside = "nan"
) -> None:
    """Write a probability map for each region, a table of regions, and on a grid a segmentation of whole numbers.

    Nothing is written where the encoder knows no region.

    Parameters
    ----------
    folder
        Existing folder.
    prefix
        BIDS entities that the names begin with.
    encoder
        Fitted on the space's voxels.
    space
        Where the voxels are.
    outside
        What voxels outside the mask get in the probability maps.

    Raises
    ------
    OutputError
        If a file cannot be written, or does not read back the same.
    """
    found = region_probability(encoder)
    if found is None:
        return
    names, probability = found
    labels = file_labels(names.tolist(), "region")
    for name, label, values in zip(names.tolist(), labels, probability.T, strict=True):
        sidecar = {
            "Description": f"Probability that a voxel is tuned like those of {name}, from its responses and a prior",
            "Units": "1",
            "Software": f"{GENERATOR} {__version__}",
        }
        save_map(values, space, folder / f"{prefix}_label-{label}_stat-probability_statmap.nii.gz", sidecar, outside)
    with atomic_file(folder / f"{prefix}_dseg.tsv") as temporary:
        likely_regions(names, probability).to_csv(temporary, sep="\t", index=False)
    if space.mask is not None:
        index = np.where(probability.max(axis=1) > LIKELY, probability.argmax(axis=1) + 1, 0)
        _write_dseg(folder / f"{prefix}_dseg.nii.gz", index, space)


def _write_dseg(path: Path, index: npt.NDArray[np.intp], space: VoxelSpace) -> None:
    volume = np.nan_to_num(unmask(index, space, "zero").get_fdata()).astype(np.int16)
    image = nib.Nifti1Image(volume, space.affine, dtype=np.int16)
    image.header.set_xyzt_units("mm")
    with atomic_file(path) as temporary:
        nib.save(image, temporary)
        if not np.array_equal(read_volume(temporary)[0], volume):
            raise OutputError(f"{path} did not read back as it was written, so it was discarded: try again.")
    what = "Likeliest region of each voxel, where it is likelier than all others together; 0 elsewhere"
    write_json(path.with_name(path.name.replace(".nii.gz", ".json")), {"Description": what})
