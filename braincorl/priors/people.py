"""Training people, from whatever is at hand: responses, or encoders that were fitted to them.

Three kinds are understood. (features, responses): the likelihood itself. A Bayesian encoder (`BayesianRidgeEncoder`,
`GroupPriorEncoder`): its fitted state holds the sufficient statistics of its context, so it says exactly as much. Any
other linear encoder: only weights are known, not how uncertain they are; they are taken at their word, as noise-free
responses to a pool of images, and a prior learned from them is a prior over what that kind of encoder finds.

Letters: n images, p features, v voxels, g levels of r.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.priors.context import Context, effective_voxels, in_basis, reduce_context, weights_as_context
from braincorl.priors.expectation import Person
from braincorl.priors.images import NO_IMAGES, image_digests
from braincorl.priors.left_out import Examinee, make_trials
from braincorl.priors.person import with_shared_scale
from braincorl.validation import FloatArray, check_finite, check_pair

DoubleArray = npt.NDArray[np.float64]

# Voxels of a person that EM reads. Thousands hold a few tens of independent ones; more cost time and teach nothing.
MOST_VOXELS = 3000
# The same while settings are compared.
MOST_VOXELS_TO_CHOOSE = 600
_MOST_VOXELS_TO_SCORE = 300
_POOL_BLOCK = 8192
# Parts of the images that are left out in turn, and the fewest images of a person that say anything about a setting.
_IMAGE_FOLDS = 3
_FEWEST_LEFT_OUT, _FEWEST_TO_TEACH = 3, 6


def read_person(person: Any, position: int, X_pool: FloatArray | None) -> Context:
    """Sufficient statistics of one training person.

    Parameters
    ----------
    person
        A pair (features (n, p), responses (n, v)) or a fitted linear encoder.
    position
        Place in the list, for messages.
    X_pool
        Features of a pool of images (m, p); needed for encoders that hold weights alone.

    Returns
    -------
    Context
        In float64, constant voxels included.

    Raises
    ------
    InputError
        If it is neither, shapes do not match, or a pool is missing.
    """
    name = f"people[{position}]"
    if hasattr(person, "context_"):
        return _double(person.context_)
    if hasattr(person, "posterior_"):
        return _from_evidence_posterior(person)
    if hasattr(person, "coef_"):
        if X_pool is None:
            raise InputError(
                f"{name} is an encoder that holds weights alone: pass X_pool, features of any images, "
                "to say over which images its responses vary."
            )
        coef = np.asarray(person.coef_, dtype=np.float64)
        if coef.shape[1] != X_pool.shape[1]:
            raise InputError(f"{name} has {coef.shape[1]} features but X_pool has {X_pool.shape[1]}: use one backbone.")
        return weights_as_context(coef, X_pool)
    if not isinstance(person, Sequence) or len(person) != 2:
        raise InputError(f"{name} is a {type(person).__name__}: pass (features, responses) or a fitted encoder.")
    X, y = (np.asarray(part, dtype=np.float64) for part in person)
    if X.ndim != 2 or y.ndim != 2:
        raise InputError(
            f"{name} has shapes {X.shape} and {y.shape}: pass (n_images, n_features), (n_images, n_voxels)."
        )
    check_pair(X, y)
    if X.shape[0] < 3:
        raise InputError(f"{name} has {X.shape[0]} images: at least 3 are needed to learn from a person.")
    check_finite(X, f"features of {name}")
    check_finite(y, f"responses of {name}")
    return reduce_context(X, y)


def image_folds(people: Sequence[Any]) -> list[list[npt.NDArray[np.bool_]]]:
    """Which images each person leaves out, in each division of all images.

    An image is recognised by its features, so that it is left out for all who saw it.

    Parameters
    ----------
    people
        As checked by `read_person`.

    Returns
    -------
    list of lists of ndarray of shape (n_images,)
        Divisions by people; empty if a person is an encoder or has too few images to leave any out.
    """
    if not all(isinstance(person, Sequence) for person in people):
        return []
    keys = [image_digests(np.asarray(person[0])).tolist() for person in people]
    distinct = sorted({key for rows in keys for key in rows})
    folds = []
    for start in range(_IMAGE_FOLDS):
        out = set(distinct[start::_IMAGE_FOLDS])
        left_out = [np.array([key in out for key in rows]) for rows in keys]
        if any(inside.sum() < _FEWEST_LEFT_OUT or (~inside).sum() < _FEWEST_TO_TEACH for inside in left_out):
            return []
        folds.append(left_out)
    return folds


def seen_images(people: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Fingerprints of the images that people saw, each once.

    Parameters
    ----------
    people
        As checked by `read_person`; encoders tell theirs unless an earlier version wrote them.

    Returns
    -------
    ndarray of shape (n,)
        Sorted; empty if a person saw images of which nothing is known.
    """
    found = [image_digests(np.asarray(person[0])) if isinstance(person, Sequence) else
             getattr(person, "image_digests_", NO_IMAGES) for person in people]  # fmt: skip
    return np.unique(np.concatenate(found)) if all(part.size for part in found) else NO_IMAGES


def examinees(
    people: Sequence[Any],
    contexts: Sequence[Context],
    regions: Sequence[npt.NDArray[np.intp]],
    basis: DoubleArray | None,
) -> list[list[Examinee]]:
    """Training people as settings are compared on them.

    Parameters
    ----------
    people, contexts
        Each person, as given and as `read_person` understood it.
    regions
        Region index of each voxel, for each person.
    basis
        Features in which settings are compared (p, m); None for all.

    Returns
    -------
    list of lists of Examinee
        Divisions of the images by people; a single one, without trials, if images cannot be left out.
    """
    folds = image_folds(people)
    if not folds:
        whole = [in_basis(context, basis) for context in contexts]
        return [[Examinee(_thin(c, r, MOST_VOXELS_TO_CHOOSE)[0]) for c, r in zip(whole, regions, strict=True)]]
    return [[_examinee(*three, basis) for three in zip(people, left_out, regions, strict=True)] for left_out in folds]


def training_person(
    context: Context, region: npt.NDArray[np.intp], most_voxels: int = MOST_VOXELS
) -> tuple[Person, float]:
    """Drop constant voxels, weigh the rest by their effective number, and thin them out if there are very many.

    Which voxels are kept depends on what they measured and not on their order.

    Parameters
    ----------
    context
        Of the person.
    region
        Region index of each voxel (v,), -1 where unknown.
    most_voxels
        How many to keep.

    Returns
    -------
    person : Person
    n_effective : float
        Effective number of all varying voxels.
    """
    person, _, n_effective = _thin(context, region, most_voxels)
    return person, n_effective


def pool_moments(contexts: Sequence[Context], X_pool: FloatArray | None) -> tuple[DoubleArray, DoubleArray]:
    """Mean (p,) and covariance (p, p) of features over the pool, or over all people's images alike."""
    if X_pool is not None:
        # Not `covariance_of`, which rounds differently: the shipped prior is to be learned again to the same bytes.
        return X_pool.mean(axis=0, dtype=np.float64), np.atleast_2d(np.cov(X_pool, rowvar=False))
    weights = np.array([context.freedom for context in contexts], dtype=np.float64)
    mean = np.asarray(np.average([context.feature_mean for context in contexts], axis=0, weights=weights))
    total = sum(context.rows.T @ context.rows for context in contexts)
    return mean, np.asarray(total / weights.sum())


def covariance_of(pool: FloatArray) -> DoubleArray:
    """Covariance of the features of a pool, in blocks: it may hold all images of a data set.

    Parameters
    ----------
    pool
        Features (m, p) of any floating type, two images or more.

    Returns
    -------
    ndarray of shape (p, p)
    """
    mean = pool.mean(axis=0, dtype=np.float64)
    total = np.zeros((pool.shape[1], pool.shape[1]))
    for start in range(0, len(pool), _POOL_BLOCK):
        centred = pool[start : start + _POOL_BLOCK] - mean
        total += centred.T @ centred
    return np.asarray(total / (len(pool) - 1))


def _thin(
    context: Context, region: npt.NDArray[np.intp], most_voxels: int
) -> tuple[Person, npt.NDArray[np.intp], float]:
    """Give the person, which voxels were kept, and the effective number of all."""
    chosen = np.flatnonzero(context.scale > 0)
    n_effective = effective_voxels(context.voxels(chosen))
    if chosen.size > most_voxels:
        keys = [_digest(z) for z in context.projected.T[chosen]]
        chosen = chosen[sorted(range(chosen.size), key=keys.__getitem__)[:most_voxels]]
    part = with_shared_scale(context.voxels(chosen))
    return Person(part, min(n_effective / max(chosen.size, 1), 1.0), region[chosen]), chosen, n_effective


def _examinee(
    pair: Any, left_out: npt.NDArray[np.bool_], region: npt.NDArray[np.intp], basis: DoubleArray | None
) -> Examinee:
    X, y = (np.asarray(part, dtype=np.float64) for part in pair)
    X = X if basis is None else X @ basis
    person, chosen, _ = _thin(reduce_context(X[~left_out], y[~left_out]), region, MOST_VOXELS_TO_CHOOSE)
    # In order of what they measured, so that any few are as good as any other.
    few = chosen[:_MOST_VOXELS_TO_SCORE]
    return Examinee(person, make_trials(X, y[:, few], left_out, region[few]))


def _digest(values: FloatArray) -> bytes:
    # Rounded, since sums may differ in their last digits with the place of a voxel in memory.
    return hashlib.blake2b(np.round(values, 6).tobytes(), digest_size=8).digest()


def _from_evidence_posterior(encoder: Any) -> Context:
    """Undo `BayesianRidgeEncoder`: rows are √(Λ/c) times its basis, and s²(r) holds what lies outside them."""
    posterior = encoder.posterior_
    eigenvalues = np.asarray(posterior.eigenvalues, dtype=np.float64)
    rows = np.sqrt(eigenvalues / float(posterior.scale))[:, None] * posterior.basis.astype(np.float64)
    projected = posterior.projected.astype(np.float64)
    n_images, r = int(posterior.n_images), float(posterior.signal_grid[0])
    marginal = r * eigenvalues + 1.0 - r
    inside = (projected**2 / marginal[:, None]).sum(axis=0)
    outside = np.maximum(posterior.variance[0].astype(np.float64) * (n_images - 1) - inside, 0.0) * (1.0 - r)
    if rows.shape[0] == n_images - 1:
        outside = np.zeros_like(outside)
    scale = np.sqrt(((projected**2).sum(axis=0) + outside) / (n_images - 1))
    safe = np.where(scale > 0, scale, 1.0)
    mean = posterior.mean.astype(np.float64)
    return Context(
        feature_mean=mean,
        rows=rows,
        projected=projected / safe,
        outside=outside / safe**2,
        scale=scale,
        response_mean=encoder.intercept_ + encoder.coef_ @ mean,
        n_images=n_images,
        noise_free=False,
        prior_freedom=0.0,
        prior_energy=np.zeros(projected.shape[1]),
    )


def _double(context: Context) -> Context:
    """Give the context in float64, without what the person's other voxels lent it."""
    double = {name: value.astype(np.float64) for name, value in vars(context).items() if isinstance(value, np.ndarray)}
    double["prior_energy"] = np.zeros(context.n_voxels)
    return replace(context, prior_freedom=0.0, **double)  # type: ignore[arg-type]
