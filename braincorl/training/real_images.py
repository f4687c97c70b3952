"""Real images in synthetic worlds: features as a backbone gives them, and the coordinates in which weights are drawn.

Weights are drawn in principal components, whose variances are known; the network reads the features as they are.

    N images of a file, p features, q components that vary
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.features import load_features
from braincorl.training.voxels import Array

_SMALLEST = 1e-9  # variance of a component, over the largest, below which it is rounding


@dataclass(frozen=True)
class ImagePool:
    """Features of real images.

    Attributes
    ----------
    features
        (N, p).
    coordinates
        The same images in their principal components, mean taken off (N, q).
    spectrum
        Variances of the components (q,), descending.
    """

    features: Array
    coordinates: Array
    spectrum: Array

    @classmethod
    def of(cls, features: npt.ArrayLike) -> Self:
        """Decompose features (N, p).

        Raises
        ------
        InputError
            If they do not vary.
        """
        X = np.asarray(features, dtype=np.float64)
        left, singular, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
        variances = singular**2 / max(len(X) - 1, 1)
        kept = variances > _SMALLEST * variances[:1]
        if not kept.any():
            raise InputError(f"the features of the {len(X)} images do not vary: pass those of different images.")
        return cls(X, (left * singular)[:, kept], variances[kept])

    def __len__(self) -> int:
        """Return N."""
        return len(self.features)

    def draw(self, n_images: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw different images.

        Parameters
        ----------
        n_images
            How many.
        rng
            Randomness.

        Returns
        -------
        features : ndarray of shape (n_images, p)
        coordinates : ndarray of shape (n_images, q)
        """
        rows = rng.permutation(len(self))[:n_images]
        return self.features[rows], self.coordinates[rows]


def read_images(names: Sequence[str], fewest: int) -> list[ImagePool]:
    """Read feature files.

    Parameters
    ----------
    names
        As `braincorl embed` writes them.
    fewest
        Images that an episode takes at least.

    Returns
    -------
    list of ImagePool

    Raises
    ------
    InputError
        If a file is missing, damaged, or has too few images.
    """
    pools = []
    for name in names:
        features: Any = load_features(name).features
        if len(features) < fewest:
            raise InputError(f"{name} has {len(features)} images, but the smallest context and n_query take {fewest}.")
        try:
            pools.append(ImagePool.of(features))
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    return pools
