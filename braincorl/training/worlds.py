"""Synthetic people to learn from: voxels, noise and features drawn at random. SIMULATION.

A person is drawn anew for every episode:

-   features: a power-law spectrum of any steepness, images in clusters, some far from all others; or those of real
    images, from files;
-   weights: isotropic for part of each voxel, for the rest a few directions that voxels share, region by region, with
    an energy that follows the spectrum more or less; or voxels like those that a group prior remembers;
-   misfit: signals that no linear encoder has, products of features, shared by voxels;
-   noise: part of it from patterns that many voxels share, part independent; unequal over images, with spoilt images
    now and then;
-   ceilings r² = .7 u^e, e in .4 to 1.6.

    n context images, m query images, p features, V voxels
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from braincorl.errors import InputError
from braincorl.training.real_images import ImagePool
from braincorl.training.voxels import (
    Array,
    Memory,
    draw_features,
    draw_misfit,
    draw_noise,
    isotropic_weights,
    log_integer,
    remembered_weights,
    shared_weights,
    unit_variance,
)


@dataclass(frozen=True)
class WorldConfig:
    """What worlds are drawn from.

    Attributes
    ----------
    n_images
        Smallest and largest context, drawn evenly in the logarithm.
    n_query
        Noise-free images to be predicted.
    n_voxels
        Smallest and largest number of voxels.
    brain_like
        Share of people whose weights have shared directions and whose noise is shared; others have independent
        Gaussian weights and noise.
    from_prior
        Share of the brain-like people whose voxels are like those that the given priors remember.
    features
        Files of real images' features, as `braincorl embed` writes them; contexts and queries never overlap.
    real_images
        Share of the people who see images of these files, where there are any.
    """

    n_images: tuple[int, int] = (4, 200)
    n_query: int = 64
    n_voxels: tuple[int, int] = (32, 1024)
    brain_like: float = 0.85
    from_prior: float = 0.5
    features: tuple[str, ...] = ()
    real_images: float = 0.5

    def __post_init__(self) -> None:
        """Refuse impossible ranges."""
        for name in ("n_images", "n_voxels"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise InputError(f"{name} must be a range of positive numbers, low to high, but is {low} to {high}.")
        if self.n_images[0] < 2 or self.n_query < 2:
            raise InputError("a context has at least 2 images, and at least 2 are to be predicted.")
        if not all(0 <= share <= 1 for share in (self.brain_like, self.from_prior, self.real_images)):
            raise InputError("brain_like, from_prior and real_images are shares, from 0 to 1.")


@dataclass(frozen=True)
class Episode:
    """One person, a context and what should be predicted.

    Attributes
    ----------
    features
        Context (n, p).
    responses
        Context (n, V).
    query_features
        (m, p).
    truth
        Noise-free responses to the queries (m, V).
    measured
        With noise (m, V).
    """

    features: Array
    responses: Array
    query_features: Array
    truth: Array
    measured: Array


def draw_episode(
    config: WorldConfig,
    n_features: int,
    memories: Sequence[Memory],
    images: Sequence[ImagePool],
    rng: np.random.Generator,
) -> Episode:
    """Draw a person and a context.

    Parameters
    ----------
    config
        Ranges.
    n_features
        p, of synthetic images.
    memories
        Whose voxels some people's are like; may be empty.
    images
        Which some people see; may be empty.
    rng
        Randomness.

    Returns
    -------
    Episode
    """
    pool = images[int(rng.integers(len(images)))] if images and rng.random() < config.real_images else None
    low, high = config.n_images
    n = log_integer((low, high if pool is None else min(high, len(pool) - config.n_query)), rng)
    n_voxels = log_integer(config.n_voxels, rng)
    brain = rng.random() < config.brain_like
    memory = None
    if memories and brain and rng.random() < config.from_prior:
        memory = memories[int(rng.integers(len(memories)))]
    if pool is None:
        features, X, spectrum = draw_features(n + config.n_query, n_features, memory, rng)
    else:
        (features, X), spectrum = pool.draw(n + config.n_query, rng), pool.spectrum
    regions = np.sort(rng.integers(rng.integers(1, 9), size=n_voxels))
    if memory is not None:
        weights = remembered_weights(memory, spectrum, regions, rng)
    else:
        weights = shared_weights(spectrum, regions, rng) if brain else isotropic_weights(spectrum, n_voxels, rng)
    signal = (X - X.mean(axis=0)) @ weights.T
    if brain and rng.random() < 0.6:
        signal = unit_variance(signal) + rng.uniform(0.1, 1.5) * draw_misfit(X, spectrum, signal.shape[1], rng)
    signal = unit_variance(signal)
    noise = draw_noise(len(X), regions, brain, rng)
    ceiling = 0.7 * rng.random(n_voxels) ** rng.uniform(0.4, 1.6)
    truth = np.sqrt(ceiling) * signal
    measured = truth + np.sqrt(1 - ceiling) * noise
    return Episode(features[:n], measured[:n], features[n:], truth[n:], measured[n:])
