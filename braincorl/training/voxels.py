"""Parts of a synthetic person: features, weights and noise, as pure functions of a random generator. SIMULATION.

n images, p features, V voxels, c kinds of voxel, q columns of a factor
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from braincorl.priors import GroupPrior

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VoxelKinds:
    """Voxels of a group prior, in the principal components of its images: responses per standard deviation of each.

    Attributes
    ----------
    spectrum
        Variances of the components (p,), descending.
    mean
        Of each kind (c, p).
    factor
        Of each kind (c, p, q).
    floor
        Spread per unit of each component that all kinds have in all directions (c, p).
    """

    spectrum: Array
    mean: Array
    factor: Array
    floor: Array

    @classmethod
    def of(cls, prior: GroupPrior) -> Self:
        """Take them from a prior."""
        variances, vectors = np.linalg.eigh(prior.pool_covariance)
        spectrum, vectors = variances[::-1].clip(0), vectors[:, ::-1]
        deviation, parts = np.sqrt(spectrum), prior.components
        return cls(
            spectrum=spectrum,
            mean=parts.mean @ vectors * deviation,
            factor=np.einsum("pi,cpq->ciq", vectors, parts.factor) * deviation[:, None],
            floor=np.sqrt(parts.floor)[:, None] * deviation,
        )


def draw_features(
    n_images: int, n_features: tuple[int, int], prior: VoxelKinds | None, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draw images in a random feature space, in its principal components.

    Parameters
    ----------
    n_images
        How many.
    n_features
        Smallest and largest number.
    prior
        If given, its feature space is used half of the time.
    rng
        Randomness.

    Returns
    -------
    X : ndarray of shape (n_images, p)
    spectrum : ndarray of shape (p,)
        Their variances in a pool, descending.
    """
    p = log_integer(n_features, rng)
    spectrum = (1 + np.arange(p) / rng.uniform(0.5, 5)) ** -rng.uniform(0.0, 2.2)
    if prior is not None and rng.random() < 0.5:
        spectrum, p = prior.spectrum, len(prior.spectrum)
    X = rng.standard_normal((n_images, p))
    if rng.random() < 0.4:  # images come in kinds
        n_kinds = int(rng.integers(2, 40))
        share = rng.uniform(0.1, 0.8)
        kinds = rng.standard_normal((n_kinds, p))
        X = np.sqrt(share) * kinds[rng.integers(n_kinds, size=n_images)] + np.sqrt(1 - share) * X
    if rng.random() < 0.3:  # some images are far from all others
        X *= np.sqrt(rng.chisquare(6, size=(n_images, 1)) / 6) ** rng.choice([-1, 1])
    return X * np.sqrt(spectrum), spectrum


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


def prior_weights(
    kinds: VoxelKinds, spectrum: Array, regions: npt.NDArray[np.int64], rng: np.random.Generator
) -> Array:
    """Draw weights from a group prior, transported to a feature space by the rank of principal components.

    Parameters
    ----------
    kinds
        Learned from real voxels.
    spectrum
        Variances of the features (p,).
    regions
        (V,); each region gets its own mix of the prior's kinds.
    rng
        Randomness.

    Returns
    -------
    ndarray of shape (V, p)
    """
    n_kinds, home, rank = kinds.factor.shape
    mix = rng.dirichlet(np.full(n_kinds, 0.5), size=int(regions.max()) + 1)
    kind = np.array([rng.choice(n_kinds, p=mix[region]) for region in regions])
    strength = np.sqrt(rng.gamma(2.0, 0.5, size=(len(regions), 1)))  # some voxels are purer than others
    energy = kinds.mean[kind] + kinds.floor[kind] * rng.standard_normal((len(regions), home))
    for c in np.unique(kind):
        rows = np.flatnonzero(kind == c)
        energy[rows] += strength[rows] * (rng.standard_normal((len(rows), rank)) @ kinds.factor[c].T)
    p = len(spectrum)
    if spectrum is not kinds.spectrum:
        source = np.minimum((np.arange(p) + 0.5) * home / p, home - 1).astype(int) if p > home else np.arange(p)
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
