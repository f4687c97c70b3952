"""Earlier people, from whatever is at hand: responses, or encoders that were fitted to them, turned into voxel weights.

A voxel is remembered as the weights of its signal, brought to unit variance over a pool of images, and by how much of
its signal they are thought to hold: a noisy voxel's weights are mostly prior, and count for less.

Letters: n images, p features, v voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.batching import batches
from braincorl.closed_forms.evidence import EvidencePosterior, fit_evidence
from braincorl.errors import InputError
from braincorl.priors.image_digests import NO_IMAGES, image_digests
from braincorl.validation import FloatArray, as_float, check_finite, check_pair

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PoolMoments:
    """Mean (p,) and covariance (p, p) of features over a pool of images."""

    mean: DoubleArray
    covariance: DoubleArray


@dataclass(frozen=True)
class RememberedPerson:
    """One person's voxels.

    Attributes
    ----------
    weights
        Of unit signal over the pool, 0 for voxels without signal (v, p).
    reliability
        Share of the signal that the weights hold, 0 to 1 (v,).
    """

    weights: FloatArray
    reliability: DoubleArray


def check_person(person: Any, position: int) -> None:
    """Refuse what is neither responses nor an encoder.

    Raises
    ------
    InputError
        If shapes do not match, values are not finite, or it is something else.
    """
    name = f"people[{position}]"
    if hasattr(person, "coef_"):
        return
    if not isinstance(person, Sequence) or len(person) != 2:
        raise InputError(f"{name} is a {type(person).__name__}: pass (features, responses) or a fitted encoder.")
    X, y = (np.asarray(part) for part in person)
    if X.ndim != 2 or y.ndim != 2:
        raise InputError(
            f"{name} has shapes {X.shape} and {y.shape}: pass (n_images, n_features), (n_images, n_voxels)."
        )
    check_pair(X, y)
    if X.shape[0] < 3:
        raise InputError(f"{name} has {X.shape[0]} images: at least 3 are needed to learn from a person.")
    check_finite(as_float(X), f"features of {name}")
    check_finite(as_float(y), f"responses of {name}")


def count_features(person: Any) -> int:
    """Features of a checked person's space."""
    return int(person.coef_.shape[1] if hasattr(person, "coef_") else np.shape(person[0])[1])


def count_voxels(person: Any) -> int:
    """Voxels of a checked person."""
    return int(person.coef_.shape[0] if hasattr(person, "coef_") else np.shape(person[1])[1])


class PoolOfPeople:
    """Moments of features over all people's own images, summed up person by person."""

    def __init__(self) -> None:
        self._mean: DoubleArray | float = 0.0
        self._second: DoubleArray | float = 0.0
        self._images, self._freedom = 0, 0

    def add(self, person: Any, position: int) -> None:
        """Count a checked person.

        Raises
        ------
        InputError
            If an encoder holds weights alone, and does not know its images.
        """
        mean, second, n_images = _context_moments(person, position)
        self._mean, self._second = self._mean + n_images * mean, self._second + second
        self._images, self._freedom = self._images + n_images, self._freedom + n_images - 1

    def result(self) -> PoolMoments:
        """Give the moments over all that were counted."""
        return PoolMoments(np.asarray(self._mean / self._images), np.asarray(self._second / self._freedom))


def pool_moments(pool: FloatArray) -> PoolMoments:
    """Moments of features over a pool, in blocks: it may hold all images of a data set.

    Parameters
    ----------
    pool
        Features (m, p) of any floating type, two images or more.

    Returns
    -------
    PoolMoments
    """
    mean = pool.mean(axis=0, dtype=np.float64)
    total = np.zeros((pool.shape[1], pool.shape[1]))
    for part in batches(len(pool), 8 * pool.shape[1]):
        centred = pool[part] - mean
        total += centred.T @ centred
    return PoolMoments(mean, total / (len(pool) - 1))


def remember_person(person: Any, pool: PoolMoments) -> RememberedPerson:
    """Turn a person into voxels of unit signal.

    Parameters
    ----------
    person
        A pair (features (n, p), responses (n, v)), or a fitted linear encoder.
    pool
        Over which signal has unit variance.

    Returns
    -------
    RememberedPerson
    """
    if hasattr(person, "coef_"):
        coef, explained = np.asarray(person.coef_), _explained_by_encoder(person)
    else:
        X, y = as_float(np.asarray(person[0])), as_float(np.asarray(person[1]))
        coef, _, posterior = fit_evidence(X.astype(y.dtype, copy=False), y, 1.0 / float(np.trace(pool.covariance)))
        explained = _explained_by_posterior(posterior)
    signal = signal_variance(coef, pool.covariance)
    # What float32 holds of a constant voxel's weights is rounding.
    alive = signal > 1e-12 * max(float(signal.max(initial=0.0)), 1e-300)
    reliability = np.ones(len(coef))
    if explained is not None:
        reliability = np.divide(signal, explained, out=np.zeros(len(coef)), where=explained > 0).clip(0.0, 1.0)
    scale = np.divide(1.0, np.sqrt(signal), out=np.zeros(len(coef)), where=alive)
    return RememberedPerson(coef * scale[:, None].astype(coef.dtype), np.where(alive, reliability, 0.0))


def signal_variance(coef: FloatArray, covariance: DoubleArray) -> DoubleArray:
    """Variance of each voxel's signal over a pool (v,), from weights (v, p) and the pool's covariance."""
    variance = np.empty(len(coef))
    for part in batches(len(coef), 24 * coef.shape[1]):
        block = coef[part].astype(np.float64)
        variance[part] = np.einsum("vp,vp->v", block @ covariance, block)
    return variance


class SeenImages:
    """Fingerprints of the images that people saw; none if those of a single person are unknown."""

    def __init__(self) -> None:
        self._found, self._all_known = NO_IMAGES, True

    def add(self, person: Any) -> None:
        """Count a checked person."""
        if hasattr(person, "coef_"):
            own = getattr(person, "image_digests_", NO_IMAGES)
        else:
            own = image_digests(np.asarray(person[0]))
        self._found, self._all_known = np.union1d(self._found, own), self._all_known and own.size > 0

    def result(self) -> npt.NDArray[np.int64]:
        """Give them, sorted."""
        return self._found if self._all_known else NO_IMAGES


def _context_moments(person: Any, position: int) -> tuple[DoubleArray, DoubleArray, int]:
    """Mean (p,), centred second moment summed over images (p, p), and number of a person's images."""
    posterior = getattr(person, "posterior_", None)
    if isinstance(posterior, EvidencePosterior):
        rows = np.sqrt(posterior.eigenvalues / float(posterior.scale))[:, None] * posterior.basis
        return posterior.mean.astype(np.float64), rows.T @ rows, int(posterior.n_images)
    if hasattr(person, "context_rows_"):  # encoders by attention
        rows = person.context_rows_.astype(np.float64)
        return person.context_mean_.astype(np.float64), rows.T @ rows, person.n_context_
    if hasattr(person, "coef_"):
        raise InputError(
            f"people[{position}] is an encoder that holds weights alone: pass X_pool, features of any images, "
            "to say over which images its responses vary."
        )
    moments = pool_moments(as_float(np.asarray(person[0])))
    n_images = len(person[0])
    return moments.mean, moments.covariance * (n_images - 1), n_images


def _explained_by_posterior(posterior: EvidencePosterior) -> DoubleArray:
    """Posterior mean of the variance of a voxel's signal (v,)."""
    return np.asarray((posterior.signal_grid[:, None] * posterior.probability * posterior.variance).sum(axis=0))


def _explained_by_encoder(encoder: Any) -> DoubleArray | None:
    posterior = getattr(encoder, "posterior_", None)
    if isinstance(posterior, EvidencePosterior):
        return _explained_by_posterior(posterior)
    if hasattr(encoder, "signal_fraction_"):
        noise = np.nan_to_num(encoder.noise_variance_.astype(np.float64))  # NaN where the context was constant
        share = encoder.signal_fraction_.astype(np.float64)
        return np.asarray(noise * share / np.maximum(1.0 - share, 1e-6))
    return None
