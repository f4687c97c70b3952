"""Parts of a synthetic person: features, weights and noise, as pure functions of a random generator. SIMULATION.

n images, p features, V voxels, J remembered voxels
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from braincorl.priors import GroupPrior

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Memory:
    """Voxels of a group prior, in the principal components of its images: responses per standard deviation of each.

    Attributes
    ----------
    spectrum
        Variances of the components (p,), descending.
    axes
        Directions of the components, one per column (p, p).
    mean
        Features of the mean image (p,).
    weights
        Of the remembered voxels, of unit energy (J, p).
    mass
        Share of all voxels that each stands for (J,).
    region
        Index of each one's region (J,), -1 where unknown.
    factor
        L with L Lᵀ the second moment of all remembered voxels (p, p).
    """

    spectrum: Array
    axes: Array
    mean: Array
    weights: Array
    mass: Array
    region: npt.NDArray[np.intp]
    factor: Array

    @classmethod
    def of(cls, prior: GroupPrior) -> Self:
        """Take them from a prior."""
        variances, vectors = np.linalg.eigh(prior.pool_covariance)
        spectrum, axes = variances[::-1].clip(0), vectors[:, ::-1]
        to_energy = axes * np.sqrt(spectrum)
        squares, directions = np.linalg.eigh(to_energy.T @ prior.moment @ to_energy)
        return cls(
            spectrum=spectrum,
            axes=axes,
            mean=prior.feature_mean,
            weights=prior.weights @ to_energy,
            mass=prior.mass,
            region=prior.region,
            factor=directions * np.sqrt(squares.clip(0)),
        )


def draw_features(n_images: int, p: int, memory: Memory | None, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Draw images in a random feature space, or in that of a memory.

    Parameters
    ----------
    n_images
        How many.
    p
        Features of an image.
    memory
        If given and of so many features, its feature space is used half of the time.
    rng
        Randomness.

    Returns
    -------
    features : ndarray of shape (n_images, p)
    coordinates : ndarray of shape (n_images, p)
        The same images in the principal components of the space.
    spectrum : ndarray of shape (p,)
        Variances of the components in a pool, descending.
    """
    spectrum = (1 + np.arange(p) / rng.uniform(0.5, 5)) ** -rng.uniform(0.0, 2.2)
    home = memory if memory is not None and len(memory.spectrum) == p and rng.random() < 0.5 else None
    if home is not None:
        spectrum = home.spectrum
    X = rng.standard_normal((n_images, p))
    if rng.random() < 0.4:  # images come in kinds
        n_kinds = int(rng.integers(2, 40))
        share = rng.uniform(0.1, 0.8)
        kinds = rng.standard_normal((n_kinds, p))
        X = np.sqrt(share) * kinds[rng.integers(n_kinds, size=n_images)] + np.sqrt(1 - share) * X
    if rng.random() < 0.3:  # some images are far from all others
        X *= np.sqrt(rng.chisquare(6, size=(n_images, 1)) / 6) ** rng.choice([-1, 1])
    X *= np.sqrt(spectrum)
    return X if home is None else home.mean + X @ home.axes.T, X, spectrum


def shared_weights(spectrum: Array, regions: npt.NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Draw weights with directions that voxels share.

    Parameters
    ----------
    spectrum
        Variances of the features (p,).
    regions
        (V,).
    rng
        Randomness.

    Returns
    -------
    ndarray of shape (V, p)
    """
    n_voxels, p = len(regions), len(spectrum)
    metric = spectrum ** rng.uniform(-0.35, 0.5)  # energy of weights along the spectrum
    rank = log_integer((1, 80), rng)
    directions = rng.standard_normal((rank, p)) * metric
    directions /= np.linalg.norm(directions * np.sqrt(spectrum), axis=1, keepdims=True)
    decay = (1.0 + np.arange(rank)) ** -rng.uniform(0, 1.2)
    loadings = rng.standard_normal((n_voxels, rank))
    centres = rng.standard_normal((int(regions.max()) + 1, rank))
    typical = rng.uniform(0, 0.9)
    loadings = np.sqrt(typical) * centres[regions] + np.sqrt(1 - typical) * loadings
    common = (loadings * decay) @ directions
    own = isotropic_weights(spectrum, n_voxels, rng) * metric
    share = rng.beta(1.2, 1.2, size=(n_voxels, 1)) if rng.random() < 0.5 else rng.beta(1.0, 1.0)
    return np.sqrt(share) * _unit_weights(common, spectrum) + np.sqrt(1 - share) * _unit_weights(own, spectrum)


def remembered_weights(
    memory: Memory, spectrum: Array, regions: npt.NDArray[np.int64], rng: np.random.Generator
) -> Array:
    """Draw voxels that are like remembered ones, in any feature space.

    A voxel is a u_j + √(1 - a²) e: u_j remembered, drawn by its mass, e of the memory's second moment, and a, how alike
    they are, even from 0 to 1. Energies go from one feature space to another by the rank of principal components.

    Parameters
    ----------
    memory
        Of real voxels.
    spectrum
        Variances of the features (p,).
    regions
        (V,); the voxels of each are like remembered voxels of one region, where the memory knows regions.
    rng
        Randomness.

    Returns
    -------
    ndarray of shape (V, p)
    """
    item = np.empty(len(regions), dtype=np.intp)
    homes = rng.choice(np.unique(memory.region), size=int(regions.max()) + 1)
    for region, home in enumerate(homes):
        rows, mass = np.flatnonzero(regions == region), memory.mass * (memory.region == home)
        item[rows] = rng.choice(len(mass), size=len(rows), p=mass / mass.sum())
    likeness = rng.random((len(regions), 1))
    residual = rng.standard_normal((len(regions), len(memory.factor))) @ memory.factor.T
    energy = likeness * memory.weights[item] + np.sqrt(1 - likeness**2) * residual
    if spectrum is not memory.spectrum:
        p, home_p = len(spectrum), len(memory.spectrum)
        source = np.minimum((np.arange(p) + 0.5) * home_p / p, home_p - 1).astype(int) if p > home_p else np.arange(p)
        jitter = np.argsort(np.arange(p) + rng.normal(0, 0.2 * (1 + np.arange(p))))  # ranks wander
        energy = energy[:, source[jitter]] * rng.choice([-1.0, 1.0], size=p)
    return np.asarray(energy / np.sqrt(np.maximum(spectrum, 1e-12 * spectrum[0])))


def draw_noise(n_images: int, regions: npt.NDArray[np.int64], brain: bool, rng: np.random.Generator) -> Array:
    """Draw noise of unit variance, part of it shared by voxels.

    Parameters
    ----------
    n_images
        Images.
    regions
        (V,).
    brain
        Whether noise is shared and unequal over images.
    rng
        Randomness.

    Returns
    -------
    ndarray of shape (n_images, V)
    """
    noise = rng.standard_normal((n_images, len(regions)))
    if not brain:
        return noise
    patterns = _noise_patterns(regions, rng)
    common = rng.standard_normal((n_images, len(patterns))) @ patterns
    share = rng.beta(1.5, 1.5) if rng.random() < 0.75 else 0.0
    noise = np.sqrt(share) * common + np.sqrt(1 - share) * noise
    if rng.random() < 0.5:
        noise *= np.exp(rng.normal(0, rng.uniform(0, 0.4), size=(n_images, 1)))
    if rng.random() < 0.2:
        noise[rng.random(n_images) < rng.uniform(0.02, 0.1)] *= rng.uniform(2, 5)
    return np.asarray(noise)


def _noise_patterns(regions: npt.NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Patterns of noise, unit energy at every voxel (rank, V): few of the whole brain, or many small ones."""
    n_voxels = len(regions)
    if rng.random() < 0.5:
        rank = int(rng.integers(2, 20))
        decay = (1.0 + np.arange(rank)) ** -rng.uniform(0, 1.2)
        patterns = rng.standard_normal((rank, n_voxels))
        patterns += rng.uniform(0, 1.5) * rng.standard_normal((rank, int(regions.max()) + 1))[:, regions]
        patterns *= decay[:, None]
    else:  # voxels stand in the order of their regions, so cells of neighbours lie within them
        size = int(rng.integers(2, 30))
        patterns = np.zeros((n_voxels // size + 2, n_voxels))
        place = np.arange(n_voxels) / size
        left = place.astype(int)
        patterns[left, np.arange(n_voxels)] = 1 - (place - left)
        patterns[left + 1, np.arange(n_voxels)] = place - left
    return np.asarray(patterns / np.linalg.norm(patterns, axis=0))


def draw_misfit(X: Array, spectrum: Array, n_voxels: int, rng: np.random.Generator) -> Array:
    """Signals that are products of features, few of them, shared by voxels; unit variance (n, V)."""
    count = log_integer((1, 60), rng)
    directions = rng.standard_normal((2, len(spectrum), count)) / np.sqrt(spectrum.sum())
    basis = (X @ directions[0]) * (X @ directions[1])
    return unit_variance(basis @ rng.standard_normal((count, n_voxels)))


def isotropic_weights(spectrum: Array, n_voxels: int, rng: np.random.Generator) -> Array:
    """Draw weights of unit signal without any structure (V, p)."""
    return np.asarray(rng.standard_normal((n_voxels, len(spectrum))) / np.sqrt(spectrum.sum()))


def _unit_weights(weights: Array, spectrum: Array) -> Array:
    """Weights whose signal has unit variance in the pool."""
    deviation = np.linalg.norm(weights * np.sqrt(spectrum), axis=1, keepdims=True)
    return np.asarray(weights / np.maximum(deviation, 1e-12))


def unit_variance(signal: Array) -> Array:
    """Signals of zero mean and unit variance over images (n, V)."""
    signal = signal - signal.mean(axis=0)
    return np.asarray(signal / np.maximum(signal.std(axis=0), 1e-12))


def log_integer(bounds: tuple[int, int], rng: np.random.Generator) -> int:
    """Draw an integer between two bounds, both included, evenly in the logarithm."""
    low, high = bounds
    return int(np.floor(np.exp(rng.uniform(np.log(low), np.log(high + 1)))))
