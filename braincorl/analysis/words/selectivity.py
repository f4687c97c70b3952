"""What voxels respond to, asked in words: `text_selectivity`.

With w_v the weights of voxel v, C the covariance of a pool of images' features and d_t the direction of text t
(`braincorl.analysis.words.text_directions`: the modality gap removed),

    selectivity_vt = w_v · d_t / √(w_vᵀ C w_v)

is how far the predicted response moves from its mean over images, in standard deviations over images, when the image
becomes more like the text and nothing else changes. How sure is it?

    posterior:   z_vt = w_v · d_t / std(w_v · d_t)            for encoders with a predictive distribution
    directions:  z_vt = w_v · d_t / √(w_vᵀ Σ w_v)             for the others

The first asks whether the context settles the sign. Its one-sided p is the posterior probability that the sign is
wrong, so that of the voxels selected at p < .05 at most a twentieth is wrong in expectation, and q = p. The second asks
whether the text does more to the voxel than a text drawn at random, Σ being the covariance of many texts' directions:
the share of random directions that would do as much is the permutation test's p, and for Gaussian directions it has
this closed form, so nothing needs to be drawn. q corrects it over voxels for the false discovery rate (Benjamini and
Hochberg). It says nothing on the noise of the weights.

How far q can be trusted: on simulated people with noise that neighbours share, of the voxels selected at q < .05 by the
posterior .055 ± .034 were not truly selective with 20 images, .013 ± .003 with 100 (`benchmarks/words.py people`).

std(w · d) comes from predictions alone. The predictive variance V(x) of any linear encoder is quadratic in x, with
noise and intercept in its constant and linear parts, so V(m + d) + V(m - d) - 2 V(m) = 2 Var(w · d) at every m.

Letters: v voxels, t texts, p features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from braincorl.analysis.words.pool import Array, Pool, make_pool
from braincorl.analysis.words.text_directions import Directions, average_prompts, text_directions
from braincorl.batching import at_a_time, batches
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.validation import FloatArray

Significance = Literal["auto", "posterior", "directions"]


@dataclass(frozen=True)
class TextSelectivity:
    """Selectivity of every voxel for every text. As an array it is `selectivity`.

    Attributes
    ----------
    texts
        Names of the texts (t,).
    selectivity
        In standard deviations of the voxel's predicted responses over images (v, t).
    z
        Selectivity over its uncertainty (v, t).
    q_value
        How likely the voxel is to be selected wrongly (v, t): the posterior probability of the other sign, or the false
        discovery rate over voxels.
    significance
        What `z` is against: "posterior" or "directions".
    """

    texts: tuple[str, ...]
    selectivity: Array
    z: Array
    q_value: Array
    significance: str

    @property
    def specificity(self) -> Array:
        """Selectivity relative to the other voxels (v, t): its z-score over voxels, text by text; 0 if all are alike.

        What most voxels share drops out, so this names what a voxel responds to more than others do. It depends on
        which voxels were fitted: within one region alone, it hides what the region is for.
        """
        spread = self.selectivity.std(axis=0)
        return _ratio(self.selectivity - self.selectivity.mean(axis=0), spread)

    def selected(self, q: float = 0.05) -> npt.NDArray[np.bool_]:
        """Voxels that respond to each text (v, t), at most a share `q` of them wrongly."""
        return self.q_value < q

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Give the selectivity (v, t)."""
        return np.array(self.selectivity, dtype=dtype, copy=copy)


def text_selectivity(
    encoder: LinearEncoder,
    text_features: npt.ArrayLike,
    image_features: npt.ArrayLike | None = None,
    *,
    versus: npt.ArrayLike | None = None,
    background: npt.ArrayLike | None = None,
    texts: Sequence[str] | None = None,
    significance: Significance = "auto",
) -> TextSelectivity:
    """Ask every voxel how much it responds to texts, or to images of a kind.

    Parameters
    ----------
    encoder
        Fitted on features of a backbone that embeds texts too.
    text_features
        Embeddings of the texts (t, p), or (t, k, p) for k prompts each, whose unit-length embeddings are averaged. For
        a backbone without language, mean features of example images, with `image_features` as `background`.
    image_features
        Features of a pool of images (n_pool, p), over which predicted responses vary; by default every direction of
        feature space counts the same.
    versus
        Embeddings of texts to contrast each text with, shaped as `text_features`: their mean. By default the mean of
        `background`.
    background
        Embeddings of many texts of all kinds (n_background, p), whose mean is what texts have in common; by default the
        texts themselves.
    texts
        Names of the texts; by default numbers.
    significance
        "posterior", "directions" (see the module), or "auto": the first where the encoder has a predictive
        distribution.

    Returns
    -------
    TextSelectivity

    Raises
    ------
    InputError
        If shapes do not match, a text does not differ from what it is contrasted with, or the encoder has no predictive
        distribution and "posterior" is asked for.
    """
    weights = np.asarray(encoder.coef_)
    n_features = weights.shape[1]
    embeddings = average_prompts(text_features, n_features)
    names = tuple(str(i) for i in range(len(embeddings))) if texts is None else tuple(texts)
    if len(names) != len(embeddings):
        raise InputError(f"texts has {len(names)} names for {len(embeddings)} rows of text_features: one per row.")
    if significance not in ("auto", "posterior", "directions"):
        raise InputError(f"significance must be 'auto', 'posterior' or 'directions', but is {significance!r}.")
    pool = make_pool(image_features, n_features)
    opposite = None if versus is None else average_prompts(versus, n_features, "versus")
    others = None if background is None else average_prompts(background, n_features, "background")
    directions = text_directions(embeddings, opposite, others, pool)
    change = np.asarray(weights @ directions.texts.T, dtype=np.float64)
    selectivity = _ratio(change, pool.spread(weights)[:, None])
    std = None if significance == "directions" else contrast_std(encoder, directions.texts, pool)
    if std is None and significance == "posterior":
        raise InputError(
            f"{type(encoder).__name__} has no predictive distribution: pass significance='directions', or use "
            "BayesianRidgeEncoder."
        )
    spread = _spread_over_directions(weights, directions, pool) if std is None else std
    z = _ratio(change, spread)
    q = stats.norm.sf(z)
    if std is None:
        q = stats.false_discovery_control(q, axis=0)
    return TextSelectivity(names, selectivity, z, np.asarray(q), "directions" if std is None else "posterior")


def contrast_std(encoder: LinearEncoder, directions: FloatArray, pool: Pool) -> Array | None:
    """Posterior standard deviation of w · d, from predictions alone.

    Parameters
    ----------
    encoder
        Fitted, with `predict(X, return_std=True)`.
    directions
        (t, p).
    pool
        Of images; its mean and size keep the predictions where the encoder is at home.

    Returns
    -------
    ndarray of shape (v, t), or None
        None if the encoder has no predictive distribution.
    """
    centre = pool.mean.astype(encoder.coef_.dtype)
    # Steps as long as images are from their mean, so that neither term of the difference drowns the other.
    step = _ratio(np.full(len(directions), np.linalg.norm(pool.factor)), np.linalg.norm(directions, axis=1))
    try:
        constant = _variance(encoder, centre[None])
    except InputError:
        return None
    std = np.empty((constant.shape[1], len(directions)))
    for part in batches(len(directions), 3 * 8 * len(std), at_a_time(3 * 8 * len(std))):
        moved = (step[part, None] * directions[part]).astype(centre.dtype)
        curvature = _variance(encoder, centre + moved) + _variance(encoder, centre - moved) - 2 * constant
        std[:, part] = (np.sqrt(np.maximum(curvature, 0.0) / 2) / step[part, None]).T
    return std


def selectivity_over_voxels(weights: FloatArray, directions: Array, pool: Pool) -> tuple[Array, Array]:
    """Summarise selectivity over voxels, without a table of all voxels and texts.

    Parameters
    ----------
    weights
        (v, p).
    directions
        Of texts (t, p).
    pool
        Of images.

    Returns
    -------
    mean, std : ndarray of shape (t,)
        Voxels without weights count as 0.
    """
    total, square = np.zeros(weights.shape[1]), np.zeros((weights.shape[1], weights.shape[1]))
    for rows in batches(len(weights), 4 * 8 * weights.shape[1]):
        part = np.asarray(weights[rows], dtype=np.float64)
        spread = pool.spread(part)[:, None]
        unit = np.divide(part, spread, out=np.zeros_like(part), where=spread > 0)
        total += unit.sum(axis=0)
        square += unit.T @ unit
    mean = directions @ total / len(weights)
    second = np.einsum("tp,tp->t", directions @ square, directions) / len(weights)
    return mean, np.sqrt(np.maximum(second - mean**2, 0.0))


def _variance(encoder: LinearEncoder, X: FloatArray) -> Array:
    """Predictive variance (n, v)."""
    std = np.asarray(encoder.predict(X, return_std=True)[1], dtype=np.float64)
    return np.asarray(std.reshape(X.shape[0], -1) ** 2)


def _spread_over_directions(weights: FloatArray, directions: Directions, pool: Pool) -> Array:
    """Take the standard deviation of w · d over random directions, of the background or else the images (v, 1)."""
    if len(directions.others):
        covariance = directions.others.T @ directions.others / len(directions.others)
        variance = np.einsum("vp,vp->v", weights @ covariance, weights)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0))[:, None])
    # Directions drawn as images deviate from their mean, as long (in the images' metric) as the texts' are.
    length = np.sqrt(np.mean(pool.spread(directions.texts) ** 2) / np.sum((pool.factor @ pool.factor.T) ** 2))
    return np.asarray(length * pool.spread(weights)[:, None])


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Quotient, 0 where the denominator is 0: a voxel without weights is selective for nothing."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.zeros(shape), where=denominator > 0)
