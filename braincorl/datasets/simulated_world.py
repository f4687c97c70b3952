"""The parts of a simulated world: an image feature space, regions with their tuning, and noise with a place.

SIMULATION: nothing here is data. Letters: n images, p features, v voxels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Array = npt.NDArray[np.float64]

CATEGORIES = ("face", "body", "place", "food", "word", "animal", "vehicle", "tool", "plant", "pattern")


@dataclass(frozen=True)
class Region:
    """A region of the simulated brain.

    Attributes
    ----------
    name
        Label, as in localiser studies.
    centre
        Distance from the midline, then y and z, in millimetres of MNI space; both hemispheres get one.
    radius
        In millimetres.
    category
        Category that its voxels prefer; None for a region without one.
    """

    name: str
    centre: tuple[float, float, float]
    radius: float
    category: str | None


# Rounded positions of the kind that localiser studies report; they lay the simulation out and claim no more.
REGIONS = (
    Region("EarlyVis", (9.0, -90.0, 0.0), 14.0, None),
    Region("LOC", (44.0, -76.0, -6.0), 10.0, "tool"),
    Region("FFA", (40.0, -52.0, -20.0), 8.0, "face"),
    Region("EBA", (50.0, -68.0, 4.0), 9.0, "body"),
    Region("PPA", (27.0, -46.0, -10.0), 8.0, "place"),
    Region("OPA", (34.0, -82.0, 20.0), 8.0, "place"),
    Region("RSC", (16.0, -54.0, 12.0), 7.0, "place"),
    Region("Food", (30.0, -62.0, -14.0), 6.0, "food"),
)


@dataclass(frozen=True)
class FeatureSpace:
    """Image features with a natural spectrum and clusters.

    Attributes
    ----------
    spectrum
        Variance along each principal direction (p,), falling as 1 / rank.
    directions
        Principal directions (p, p), orthonormal rows.
    mean
        Mean feature vector (p,).
    centres
        Category centres in whitened principal coordinates (n_categories, p).
    """

    spectrum: Array
    directions: Array
    mean: Array
    centres: Array

    def draw(self, n_images: int, rng: np.random.Generator) -> tuple[Array, npt.NDArray[np.intp]]:
        """Draw images: unit-norm features (n, p) and the category of each (n,)."""
        category = rng.integers(len(CATEGORIES), size=n_images)
        within = np.sqrt(1.0 - CLUSTER_VARIANCE)
        whitened = self.centres[category] + within * rng.standard_normal((n_images, self.spectrum.size))
        features = self.mean + (whitened * np.sqrt(self.spectrum)) @ self.directions
        return features / np.linalg.norm(features, axis=1, keepdims=True), category


CLUSTER_VARIANCE = 0.4


def draw_feature_space(n_features: int, rng: np.random.Generator) -> FeatureSpace:
    """Draw a feature space (p features), with the common offset that unit-norm embeddings have."""
    spectrum = 1.0 / np.arange(1, n_features + 1)
    directions = np.linalg.qr(rng.standard_normal((n_features, n_features)))[0].T
    offset = rng.standard_normal(n_features)
    mean = offset / np.linalg.norm(offset) * np.sqrt(spectrum.sum())  # as long as the typical deviation from it
    # Categories differ along the leading directions only, as semantic clusters do.
    reach = 1.0 / np.sqrt(1.0 + np.arange(n_features) / (2 * len(CATEGORIES)))
    centres = rng.standard_normal((len(CATEGORIES), n_features)) * reach * np.sqrt(CLUSTER_VARIANCE)
    return FeatureSpace(spectrum, directions, mean, centres)


@dataclass(frozen=True)
class Brain:
    """Voxels of a small brain in MNI space.

    Attributes
    ----------
    mask
        3-D bool grid.
    affine
        (4, 4), to millimetres.
    region
        Index into `REGIONS` of each voxel (v,); -1 for none.
    """

    mask: npt.NDArray[np.bool_]
    affine: Array
    region: npt.NDArray[np.intp]


def posterior_cortex(voxel_size_mm: int) -> Brain:
    """Occipital and ventral temporal grey matter of the MNI152 template, with the regions in both hemispheres."""
    from nilearn.datasets import load_mni152_gm_mask

    image = load_mni152_gm_mask(resolution=voxel_size_mm)
    affine = np.asarray(image.affine, dtype=np.float64)
    grey = np.asarray(image.dataobj) > 0
    position = np.argwhere(grey) @ affine[:3, :3].T + affine[:3, 3]
    visual = (position[:, 1] < -38) & (position[:, 2] > -32) & (position[:, 2] < 36)
    mask = np.zeros(grey.shape, dtype=bool)
    mask[tuple(np.argwhere(grey)[visual].T)] = True
    mirrored = np.column_stack([np.abs(position[visual, 0]), position[visual, 1:]])
    distance = np.stack([np.linalg.norm(mirrored - r.centre, axis=1) / r.radius for r in REGIONS])
    region = np.where(distance.min(axis=0) <= 1.0, distance.argmin(axis=0), -1)
    return Brain(mask, affine, region)


def smooth_fields(brain: Brain, n_fields: int, fwhm_mm: float, rng: np.random.Generator) -> Array:
    """Gaussian fields of unit variance over the voxels (n_fields, v), shared by neighbours."""
    sigma = fwhm_mm / 2.355 / np.abs(np.diag(brain.affine)[:3])
    # The variance that filtering leaves to white noise is the energy of the kernel, away from the grid's edges.
    impulse = np.zeros(brain.mask.shape)
    impulse[tuple(size // 2 for size in brain.mask.shape)] = 1.0
    scale = 1.0 / np.sqrt((gaussian_filter(impulse, sigma) ** 2).sum())
    fields = np.empty((n_fields, int(brain.mask.sum())))
    for field in fields:
        noise = rng.standard_normal(brain.mask.shape)
        field[:] = gaussian_filter(noise, sigma)[brain.mask] * scale
    return fields
