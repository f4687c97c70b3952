"""`simulate_people`: people who share a world and whose true encoders are known.

SIMULATION: the responses are drawn, never measured. The world has an image feature space with a 1/rank spectrum and
category clusters; regions laid out in MNI space, each with its own tuning that people share and that varies smoothly
over voxels and from person to person; noise ceilings of a trial spread from .05 to .7 as in real visual cortex, more of
them low; noise that neighbouring voxels share; and a few trials of several times the noise. Letters: n images, p
features, v voxels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.special import logsumexp, ndtr

from braincorl.datasets.betas.beta_files import ArrayBetas
from braincorl.datasets.space import VoxelSpace
from braincorl.datasets.subject import SubjectData
from braincorl.datasets.trials.averaging import average_trials
from braincorl.datasets.trials.rois import labels_to_rois
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.errors import InputError

Array = npt.NDArray[np.float64]

N_TUNING = 24  # directions of tuning that all people share beside the regions' categories
SHARED_NOISE = 0.5  # share of noise variance that neighbours have in common
NOISE_FWHM_MM = 8.0  # chosen, not measured
TUNING_FWHM_MM = 10.0  # chosen: about the size of a category-selective region
OUTLIER_RATE, OUTLIER_FACTOR = 0.02, 4.0
MARGIN_MM, BORDER_MM = 9.0, 6.0  # of cortex around the regions of a sheet; chosen so that it looks like visual cortex


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


CLUSTER_VARIANCE = 0.4  # share of the features' variance between categories; chosen, not measured


def _draw_feature_space(n_features: int, rng: np.random.Generator) -> FeatureSpace:
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
    return Brain(mask, affine, _region_of(position[visual]))


def _visual_sheet(voxel_size_mm: int) -> Brain:
    """Voxels that the folded cortex of fsaverage5 passes through, within a margin around the regions."""
    from nilearn.datasets import load_fsaverage

    meshes = load_fsaverage("fsaverage5")
    white, pial = (
        np.concatenate([np.asarray(meshes[kind].parts[side].coordinates) for side in ("left", "right")])
        for kind in ("white_matter", "pial")
    )
    middle = (white + pial) / 2
    mirrored = np.column_stack([np.abs(middle[:, 0]), middle[:, 1:]])
    beyond = np.stack([np.linalg.norm(mirrored - r.centre, axis=1) - r.radius for r in REGIONS])
    # A soft minimum: the border runs smoothly from one region's margin to the next one's.
    near = -BORDER_MM * logsumexp(-beyond / BORDER_MM, axis=0) <= MARGIN_MM
    depths = np.concatenate([white[near] + share * (pial - white)[near] for share in (0.0, 0.5, 1.0)])
    corner = np.floor(depths.min(axis=0) / voxel_size_mm) - 1
    index = np.round(depths / voxel_size_mm - corner).astype(np.intp)
    mask = np.zeros(index.max(axis=0) + 2, dtype=bool)
    mask[tuple(index.T)] = True
    affine = np.diag([float(voxel_size_mm)] * 3 + [1.0])
    affine[:3, 3] = corner * voxel_size_mm
    return Brain(mask, affine, _region_of(np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]))


def _region_of(position: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Index into `REGIONS` of each place (v, 3) in millimetres of MNI space; -1 for none."""
    mirrored = np.column_stack([np.abs(position[:, 0]), position[:, 1:]])
    distance = np.stack([np.linalg.norm(mirrored - r.centre, axis=1) / r.radius for r in REGIONS])
    return np.where(distance.min(axis=0) <= 1.0, distance.argmin(axis=0), -1)


LAYOUTS: dict[str, Callable[[int], Brain]] = {"block": posterior_cortex, "sheet": _visual_sheet}


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


@dataclass(frozen=True)
class SimulatedPerson:
    """One simulated person.

    Attributes
    ----------
    name
        BIDS label.
    trials
        Single-trial responses (n_trials, n_voxels), float32, in % signal change.
    trial_images
        Image of each trial (n_trials,).
    true_coef, true_intercept
        The encoder that made the responses: (n_voxels, n_features) and (n_voxels,).
    noise_variance
        Variance of a trial around it (n_voxels,), outlier trials apart.
    space
        Where the voxels are.
    rois
        Region name -> bool (n_voxels,).
    """

    name: str
    trials: npt.NDArray[np.float32]
    trial_images: npt.NDArray[np.str_]
    true_coef: Array
    true_intercept: Array
    noise_variance: Array
    space: VoxelSpace
    rois: dict[str, npt.NDArray[np.bool_]]

    def subject(self) -> SubjectData:
        """Responses averaged over repeats, as `load_subject` would give them."""
        table = TrialsTable(self.trial_images, np.full(self.trial_images.size, ""))
        images = np.asarray(list(dict.fromkeys(self.trial_images.tolist())))
        averages = average_trials([ArrayBetas(self.trials)], [table], images, zscore=False)
        return SubjectData(
            averages.responses, images, self.space, averages.n_repeats, self.rois, averages.ncsnr, self.name
        )

    def true_responses(self, features: npt.NDArray[np.floating[Any]]) -> Array:
        """Noise-free responses (n_images, n_voxels) to features (n_images, n_features)."""
        return np.asarray(features @ self.true_coef.T + self.true_intercept)

    def write(self, folder: str | Path) -> dict[str, Path]:
        """Write betas, trials, mask and regions in the formats that `load_subject` reads.

        Parameters
        ----------
        folder
            Existing folder.

        Returns
        -------
        dict
            Paths of `betas`, `trials`, `mask` and `rois`.
        """
        folder = Path(folder)
        stem = folder / f"{self.name}_task-simulated"
        paths = {
            "betas": Path(f"{stem}_stat-effect_statmap.nii.gz"),
            "trials": Path(f"{stem}_trials.tsv"),
            "mask": Path(f"{stem}_desc-cortex_mask.nii.gz"),
            "rois": Path(f"{stem}_desc-regions_dseg.nii.gz"),
        }
        mask, affine = self.space.mask, self.space.affine
        assert mask is not None  # a simulated person always has a grid
        volume = np.zeros((*mask.shape, self.trials.shape[0]), dtype=np.float32)
        volume[mask] = self.trials.T
        nib.save(nib.Nifti1Image(volume, affine), paths["betas"])
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), paths["mask"])
        labels = np.zeros(mask.shape, dtype=np.uint8)
        names = sorted(self.rois)
        for number, name in enumerate(names, start=1):
            labels[tuple(np.argwhere(mask)[self.rois[name]].T)] = number
        nib.save(nib.Nifti1Image(labels, affine), paths["rois"])
        rows = "".join(f"{number}\t{name}\n" for number, name in enumerate(names, start=1))
        Path(f"{stem}_desc-regions_dseg.tsv").write_text("index\tname\n" + rows, encoding="utf-8")
        trial_rows = "".join(f"{number}\t{image}\n" for number, image in enumerate(self.trial_images))
        paths["trials"].write_text("trial\timage\n" + trial_rows, encoding="utf-8")
        return paths


@dataclass(frozen=True)
class SimulatedPeople:
    """People of one simulated world.

    Attributes
    ----------
    features
        Of all images (n_images, n_features), float32, unit norm.
    image_ids
        Names, `category-number` (n_images,).
    shared
        Images that every person saw (n_shared,).
    people
        The people.
    """

    features: npt.NDArray[np.float32]
    image_ids: npt.NDArray[np.str_]
    shared: npt.NDArray[np.str_]
    people: tuple[SimulatedPerson, ...]

    def features_of(self, image_ids: npt.NDArray[np.str_]) -> npt.NDArray[np.float32]:
        """Features of the named images (n_names, n_features)."""
        row = {name: index for index, name in enumerate(self.image_ids.tolist())}
        return self.features[[row[str(name)] for name in image_ids]]


def simulate_people(
    n_people: int = 4,
    *,
    n_own: int = 200,
    n_shared: int = 100,
    n_features: int = 128,
    shared_repeats: int = 3,
    voxel_size_mm: int = 5,
    layout: Literal["block", "sheet"] = "block",
    random_state: int = 0,
) -> SimulatedPeople:
    """Simulate people who saw images of their own once, and shared images several times.

    Parameters
    ----------
    n_people
        Number of people.
    n_own
        Images that one person alone sees, one trial each.
    n_shared
        Images that everybody sees, `shared_repeats` trials each.
    n_features
        Size of the feature space.
    shared_repeats
        Trials of each shared image.
    voxel_size_mm
        Edge of a voxel in whole millimetres; 5 gives about 3,500 voxels.
    layout
        Where the voxels are: "block", all grey matter of the back of the MNI152 template; "sheet", the voxels that the
        folded cortex of fsaverage5 passes through around the regions, which looks like a person's visual cortex.
    random_state
        Seed; the same seed gives the same people.

    Returns
    -------
    SimulatedPeople

    Raises
    ------
    InputError
        If a count is below its minimum, or the layout is another.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout must be {' or '.join(LAYOUTS)}, but is {layout!r}.")
    minima = {"n_people": (n_people, 1), "n_shared": (n_shared, 2), "n_features": (n_features, 2)}
    minima |= {"n_own": (n_own, 0), "shared_repeats": (shared_repeats, 1)}
    for name, (value, minimum) in minima.items():
        if value < minimum:
            raise InputError(f"{name} must be at least {minimum}, but is {value}.")
    rng = np.random.default_rng(random_state)
    feature_space = _draw_feature_space(n_features, rng)
    features, category = feature_space.draw(n_shared + n_people * n_own, rng)
    image_ids = np.asarray([f"{CATEGORIES[c]}-{number:05d}" for number, c in enumerate(category)])
    brain = LAYOUTS[layout](voxel_size_mm)
    shared_tuning = _draw_tuning(feature_space, rng)
    people = []
    for number in range(n_people):
        own = slice(n_shared + number * n_own, n_shared + (number + 1) * n_own)
        rows = np.r_[np.arange(n_shared).repeat(shared_repeats), np.arange(own.start, own.stop)]
        rng.shuffle(rows)
        people.append(_draw_person(f"sub-{number + 1:02d}", brain, features, image_ids, rows, shared_tuning, rng))
    return SimulatedPeople(features.astype(np.float32), image_ids, image_ids[:n_shared], tuple(people))


@dataclass(frozen=True)
class _Tuning:
    """Tuning that people share, as weights over features: region means (n_regions, p) and directions (N_TUNING, p)."""

    regions: Array
    directions: Array


def _draw_tuning(space: FeatureSpace, rng: np.random.Generator) -> _Tuning:
    """Weights that give unit response variance, concentrated on the leading components of the images."""
    decay = 1.0 / np.sqrt(1.0 + np.arange(space.spectrum.size))

    def to_weights(whitened: Array) -> Array:
        unit = whitened / np.linalg.norm(whitened, axis=-1, keepdims=True)
        return np.asarray((unit / np.sqrt(space.spectrum)) @ space.directions)

    means = []
    for region in REGIONS:
        direction = rng.standard_normal(space.spectrum.size) * decay
        if region.category is not None:
            own = CATEGORIES.index(region.category)
            direction = space.centres[own] - np.delete(space.centres, own, axis=0).mean(axis=0)
        means.append(to_weights(direction))
    return _Tuning(np.stack(means), to_weights(rng.standard_normal((N_TUNING, space.spectrum.size)) * decay))


def _draw_person(
    name: str,
    brain: Brain,
    features: Array,
    image_ids: npt.NDArray[np.str_],
    rows: npt.NDArray[np.intp],
    tuning: _Tuning,
    rng: np.random.Generator,
) -> SimulatedPerson:
    n_voxels = brain.region.size
    coef = _draw_weights(brain, tuning, rng)
    signal = features @ coef.T
    coef /= signal.std(axis=0)[:, None]  # unit signal variance over all the world's images
    amplitude = 0.5 * np.exp(0.4 * rng.standard_normal(n_voxels))  # % signal change
    coef *= amplitude[:, None]
    intercept = 0.5 + 0.5 * rng.standard_normal(n_voxels) - features.mean(axis=0) @ coef.T
    # Ceilings vary smoothly over the brain. None is 0: against the noise-free truth, such voxels would drown the rest.
    ceiling = 0.05 + 0.65 * ndtr(smooth_fields(brain, 1, 12.0, rng)[0]) ** 1.3
    noise_variance = amplitude**2 * (1.0 / ceiling - 1.0)
    shared = np.sqrt(SHARED_NOISE) * smooth_fields(brain, rows.size, NOISE_FWHM_MM, rng)
    noise = shared + np.sqrt(1.0 - SHARED_NOISE) * rng.standard_normal((rows.size, n_voxels))
    noise *= np.where(rng.random(rows.size) < OUTLIER_RATE, OUTLIER_FACTOR, 1.0)[:, None]
    trials = features[rows] @ coef.T + intercept + noise * np.sqrt(noise_variance)
    labels = ["" if index < 0 else REGIONS[index].name for index in brain.region]
    return SimulatedPerson(
        name=name,
        trials=trials.astype(np.float32),
        trial_images=image_ids[rows],
        true_coef=coef,
        true_intercept=intercept,
        noise_variance=noise_variance,
        space=VoxelSpace(np.ones(n_voxels, dtype=bool), brain.mask, brain.affine),
        rois=labels_to_rois(labels, n_voxels),
    )


def _draw_weights(brain: Brain, tuning: _Tuning, rng: np.random.Generator) -> Array:
    """Voxel weights (v, p): the region's tuning, shared directions mixed smoothly in space, and some of their own."""
    n_voxels, n_features = brain.region.size, tuning.directions.shape[1]
    mixing = smooth_fields(brain, N_TUNING, TUNING_FWHM_MM, rng) / np.sqrt(N_TUNING)
    weights = 0.9 * mixing.T @ tuning.directions
    strength = 0.8 + 0.3 * rng.standard_normal(len(REGIONS))  # a person's own strength of each region's preference
    labelled = brain.region >= 0
    weights[labelled] += strength[brain.region[labelled], None] * tuning.regions[brain.region[labelled]]
    own = rng.standard_normal((n_voxels, N_TUNING)) / np.sqrt(N_TUNING)
    weights += 0.4 * own @ tuning.directions
    typical = np.linalg.norm(tuning.directions, axis=1).mean() / np.sqrt(n_features)
    return np.asarray(weights + 0.1 * typical * rng.standard_normal((n_voxels, n_features)))
