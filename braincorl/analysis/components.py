"""Encoders as data: components, clusters, flat maps, and comparison, all in the metric of the images' features.

Weights alone compare badly: along directions in which images hardly vary, they are arbitrary. What counts is what
encoders predict, so all inner products are covariances of predicted responses over a pool of images, wᵀCw' (see
`braincorl.analysis.words.pool`), and every voxel counts with predictions of unit variance.

Letters: v voxels, p features, k components, n images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl.analysis.words.pool import Array, Pool, make_pool
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError


class Reducer(Protocol):
    """What lays points of many dimensions out in few."""

    def fit_transform(self, X: Array, /) -> npt.ArrayLike:
        """Map (v, k) to (v, 2)."""


Encoders = LinearEncoder | Sequence[LinearEncoder]
Rois = Mapping[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class EncoderComponents:
    """Main ways in which voxels' encoders differ.

    Attributes
    ----------
    scores
        Of every voxel (v, k): covariance over images of its unit-variance prediction and the component's.
    weights
        Encoder of each component (k, p), of unit variance over the pool: `features @ weights.T` ranks images.
    explained
        Share of all voxels' predicted variance (k,).
    person
        Which of the encoders each voxel is of (v,).
    """

    scores: Array
    weights: Array
    explained: Array
    person: npt.NDArray[np.intp]


def encoder_components(
    encoders: Encoders, image_features: npt.ArrayLike | None = None, n_components: int = 4
) -> EncoderComponents:
    """Principal components of predicted responses over voxels.

    Parameters
    ----------
    encoders
        One fitted encoder, or those of several people in one feature space.
    image_features
        Features of a pool of images (n, p); by default every direction of feature space counts the same.
    n_components
        How many.

    Returns
    -------
    EncoderComponents
        The first component's images are those that drive voxels in common (voxels are not centred: what they share is
        a finding). Signs are such that most voxels score above 0.

    Raises
    ------
    InputError
        If the encoders are of different feature spaces, or `n_components` is below 1 or above what the weights hold.
    """
    weights, person = _stack(encoders)
    pool = make_pool(image_features, weights.shape[1])
    unit = _unit(weights, pool)
    largest = min(unit.shape)
    if not 1 <= n_components <= largest:
        raise InputError(f"n_components must be between 1 and {largest}, but is {n_components}.")
    values, vectors = np.linalg.eigh(unit.T @ unit)
    axes = vectors[:, ::-1][:, :n_components].T
    scores = unit @ axes.T
    signs = np.where(np.sum(scores > 0, axis=0) >= np.sum(scores < 0, axis=0), 1.0, -1.0)
    # A direction a in the metric is the encoder w with F w = a; F's rows are orthogonal, so w = Fᵀ a / |rows|².
    back = axes / np.sum(pool.factor**2, axis=1) @ pool.factor
    share = values[::-1][:n_components] / max(values.sum(), np.finfo(np.float64).tiny)
    return EncoderComponents(scores * signs, back * signs[:, None], share, person)


def cluster_voxels(
    encoders: Encoders,
    image_features: npt.ArrayLike | None = None,
    n_clusters: int = 8,
    n_components: int = 20,
    random_state: int = 0,
) -> tuple[npt.NDArray[np.intp], Array]:
    """Group voxels whose predictions go together.

    Parameters
    ----------
    encoders
        One fitted encoder, or those of several people.
    image_features
        Features of a pool of images (n, p).
    n_clusters
        How many groups.
    n_components
        Components in which k-means looks (fewer if the weights hold fewer).
    random_state
        Seed of the starts.

    Returns
    -------
    labels : ndarray of shape (v,)
        From 0, the largest group first.
    weights : ndarray of shape (n_clusters, p)
        Mean encoder of each group, of voxels with unit-variance predictions.

    Raises
    ------
    InputError
        If there are fewer voxels than groups, or the encoders do not fit together.
    """
    from sklearn.cluster import KMeans

    weights, _ = _stack(encoders)
    if not 1 <= n_clusters <= len(weights):
        raise InputError(f"n_clusters must be between 1 and {len(weights)}, the voxels, but is {n_clusters}.")
    components = encoder_components(encoders, image_features, min(n_components, *weights.shape))
    found = KMeans(n_clusters, n_init=4, random_state=random_state).fit(components.scores)
    order = np.argsort(-np.bincount(found.labels_, minlength=n_clusters), kind="stable")
    labels = np.argsort(order)[found.labels_]
    return labels, np.asarray(found.cluster_centers_[order] @ components.weights)


def embed_voxels(
    encoders: Encoders,
    image_features: npt.ArrayLike | None = None,
    reducer: Reducer | None = None,
    n_components: int = 20,
    random_state: int = 0,
) -> Array:
    """Lay voxels out in a plane so that those with like predictions are neighbours.

    Parameters
    ----------
    encoders
        One fitted encoder, or those of several people.
    image_features
        Features of a pool of images (n, p).
    reducer
        Anything with `fit_transform`, such as `umap.UMAP()` of umap-learn; by default scikit-learn's t-SNE, which takes
        minutes for 20,000 voxels.
    n_components
        Principal components that it starts from (fewer if the weights hold fewer).
    random_state
        Seed of the default; a `reducer` has its own.

    Returns
    -------
    ndarray of shape (v, 2), or as many columns as `reducer` gives
        NaN for voxels without weights. Neighbours mean something; distances across the map and its axes do not.

    Raises
    ------
    InputError
        If fewer than four voxels have weights, or the encoders do not fit together.
    """
    weights, _ = _stack(encoders)
    scores = encoder_components(encoders, image_features, min(n_components, *weights.shape)).scores
    varying = np.linalg.norm(scores, axis=1) > 0
    if varying.sum() < 4:
        raise InputError(f"{varying.sum()} voxels have weights, but a map needs at least 4: pass more voxels.")
    if reducer is None:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (int(varying.sum()) - 1) / 3)
        reducer = TSNE(perplexity=perplexity, init="pca", random_state=random_state)
    found = np.asarray(reducer.fit_transform(scores[varying]), dtype=np.float64)
    plane = np.full((len(scores), found.shape[1]), np.nan)
    plane[varying] = found
    return plane


def tuning_correlation(
    encoder: LinearEncoder, other: LinearEncoder, image_features: npt.ArrayLike | None = None
) -> Array:
    """Correlate, voxel by voxel, the predicted responses of two encoders of the same voxels.

    Parameters
    ----------
    encoder, other
        Fitted on the same voxels, as from two contexts, or by two methods.
    image_features
        Features of a pool of images (n, p).

    Returns
    -------
    ndarray of shape (v,)
        Pearson correlation over the pool; 0 where an encoder is flat.

    Raises
    ------
    InputError
        If the encoders differ in voxels or features.
    """
    if encoder.coef_.shape != other.coef_.shape:
        raise InputError(
            f"the encoders have weights {encoder.coef_.shape} and {other.coef_.shape}: voxel by voxel only encoders "
            "of the same voxels and features compare; use compare_encoders for two people."
        )
    pool = make_pool(image_features, encoder.coef_.shape[1])
    return np.asarray(np.einsum("vk,vk->v", _unit(encoder.coef_, pool), _unit(other.coef_, pool)))


def compare_encoders(
    encoder: LinearEncoder,
    other: LinearEncoder,
    image_features: npt.ArrayLike | None = None,
    rois: Rois | None = None,
    other_rois: Rois | None = None,
) -> pd.DataFrame:
    """Compare what two encoders predict, region by region, whether or not their voxels correspond.

    Parameters
    ----------
    encoder, other
        Fitted in one feature space, on two people or two contexts of one.
    image_features
        Features of a pool of images (n, p).
    rois, other_rois
        Regions of each: name -> bool (n_voxels,). By default the second's are the first's.

    Returns
    -------
    pandas.DataFrame
        One row for all voxels and one per region that both have: `roi`, `n_voxels`, `n_other`; `mean_r`, the
        correlation over images of the two regions' mean predictions; `cka`, linear centred kernel alignment of all
        their voxels' predictions (1: the same up to rotation; Kornblith et al., ICML 2019). NaN for empty regions.

    Raises
    ------
    InputError
        If the feature spaces differ or regions do not match the voxels.
    """
    _stack([encoder, other])
    pool = make_pool(image_features, encoder.coef_.shape[1])
    ours, theirs = _unit(encoder.coef_, pool), _unit(other.coef_, pool)
    first, second = dict(rois or {}), dict((rois if other_rois is None else other_rois) or {})
    everyone = [("all", np.ones(len(ours), dtype=bool), np.ones(len(theirs), dtype=bool))]
    rows = []
    for name, mine, their in everyone + [(name, first[name], second[name]) for name in first if name in second]:
        if mine.shape != (len(ours),) or their.shape != (len(theirs),):
            raise InputError(f"rois['{name}'] does not match the voxels: expected one bool per voxel of each encoder.")
        a, b = ours[mine], theirs[their]
        alike = (_cosine(a.sum(axis=0), b.sum(axis=0)), _cosine(a.T @ a, b.T @ b))  # NaN if a region is empty
        rows.append((name, len(a), len(b), *alike))
    return pd.DataFrame(rows, columns=["roi", "n_voxels", "n_other", "mean_r", "cka"])


def _stack(encoders: Encoders) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Weights of all voxels (v, p), and whose they are (v,)."""
    several = [encoders] if isinstance(encoders, LinearEncoder) else list(encoders)
    sizes = {encoder.coef_.shape[1] for encoder in several}
    if len(sizes) != 1:
        raise InputError(f"the encoders have {sorted(sizes)} features: they must be one or more, of one feature space.")
    person = np.repeat(np.arange(len(several)), [len(encoder.coef_) for encoder in several])
    return np.concatenate([encoder.coef_ for encoder in several]), person


def _unit(weights: npt.NDArray[Any], pool: Pool) -> Array:
    """Weights in the pool's metric, of unit length; flat voxels stay 0."""
    inside = pool.in_metric(weights)
    length = np.linalg.norm(inside, axis=1, keepdims=True)
    unit: Array = np.divide(inside, length, out=np.zeros_like(inside), where=length > 0)
    return unit


def _cosine(a: Array, b: Array) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.sum(a * b)) / size if size > 0 else float("nan")
