"""Episodes of people with measured responses: random images as context, others as queries.

What is to be predicted is measured, noise and all, since nobody knows the noise-free response. Images of the context
and of the queries never overlap, and a person who is held out is never learned from.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.storage.files import check_regular, reading
from braincorl.training.recipe import RealConfig
from braincorl.training.voxels import log_integer
from braincorl.training.worlds import Episode
from braincorl.validation import FloatArray

Array = npt.NDArray[np.float64]


class RealPeople:
    """People of a recipe, by number.

    Parameters
    ----------
    config
        Contexts and queries.
    features
        (n_images, p).
    responses
        One array per person (n_images, n_voxels), NaN rows where a person did not see the image.

    Raises
    ------
    InputError
        If arrays do not fit one another, or a person has too few images.
    """

    def __init__(self, config: RealConfig, features: FloatArray, responses: Sequence[FloatArray]) -> None:
        self.config, self.features = config, np.asarray(features, dtype=np.float64)
        self.people: list[tuple[npt.NDArray[np.intp], Array]] = []
        for number, raw in enumerate(responses):
            values = np.asarray(raw, dtype=np.float64)
            if values.ndim != 2 or len(values) != len(self.features):
                raise InputError(
                    f"person {number} has responses of shape {values.shape}, but there are {len(self.features)} "
                    "images: pass (n_images, n_voxels) with the rows of the features."
                )
            seen = np.flatnonzero(np.isfinite(values).all(axis=1))
            varying = np.ptp(values[seen], axis=0) > 0 if seen.size else np.zeros(values.shape[1], bool)
            if seen.size < config.n_images[0] + 2 or not varying.any():
                raise InputError(f"person {number} has {seen.size} images with responses: too few for a context.")
            self.people.append((seen, values[:, varying]))

    def draw(self, rng: np.random.Generator) -> Episode:
        """Draw a person, a context and queries.

        Parameters
        ----------
        rng
            Randomness.

        Returns
        -------
        Episode
            `truth` is `measured`.
        """
        seen, responses = self.people[rng.integers(len(self.people))]
        n_query = min(self.config.n_query, max(2, len(seen) // 3))
        largest = min(self.config.n_images[1], len(seen) - n_query)
        n_images = log_integer((min(self.config.n_images[0], largest), largest), rng)
        images = rng.permutation(seen)[: n_images + n_query]
        voxels = np.sort(rng.permutation(responses.shape[1])[: self.config.n_voxels])
        y, X = responses[np.ix_(images, voxels)], self.features[images]
        return Episode(
            features=X[:n_images],
            responses=y[:n_images],
            query_features=X[n_images:],
            truth=y[n_images:],
            measured=y[n_images:],
        )


def read_people(config: RealConfig, features: FloatArray, names: Sequence[str]) -> RealPeople:
    """Read response arrays.

    Parameters
    ----------
    config
        Contexts and queries.
    features
        (n_images, p).
    names
        `.npy` files, one per person.

    Returns
    -------
    RealPeople

    Raises
    ------
    InputError
        If a file cannot be read, or does not fit the features.
    """
    return RealPeople(config, features, [_read_responses(name) for name in names])


def _read_responses(name: str) -> npt.NDArray[Any]:
    path = check_regular(name, "array of responses")
    with reading(path, "cannot be read as an array of responses"):
        array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise InputError(
            f"{path} cannot be read as an array of responses: it holds something else than one array of real numbers."
        )
    return array
