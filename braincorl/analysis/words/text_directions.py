"""Texts as directions in feature space, free of the gap between texts and images.

In CLIP-like spaces the texts lie in a region of their own, far from the images, so the embedding of a text is mostly
what all texts have in common. What it says is how it differs from other texts: with τ_t the embedding of text t, τ̄ the
mean of many texts, and τ_o the mean of the texts it is contrasted with,

    d_t = a_t (τ_t - τ̄)        or, as a contrast,        d_t = a_t (τ_t - τ_o)

The response to an image that lies at the images' mean plus d_t is then a prediction among images, not outside them. a_t
makes the pool's images vary equally along every direction, as they do on average along the texts' own. Without it,
texts along which images hardly differ are at a disadvantage, since an encoder learned from images knows little about
them; `benchmarks/words.py` measures both.

The gap: Liang et al., Mind the gap, NeurIPS 2022. Letters: t texts, p features, k prompts.
"""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.analysis.words.pool import Array, Pool
from braincorl.errors import InputError
from braincorl.features.backbones.backbone import to_unit_length
from braincorl.validation import check_finite

logger = logging.getLogger(__name__)

# With fewer other texts than this, their own spread is too uncertain to compare a text with.
FEWEST_BACKGROUND = 20


@dataclass(frozen=True)
class Directions:
    """What texts stand for.

    Attributes
    ----------
    texts
        Direction of every text (t, p).
    others
        Directions of the background texts (n_background, p), scaled alike; none if there are too few.
    """

    texts: Array
    others: Array


def average_prompts(features: npt.ArrayLike, n_features: int, name: str = "text_features") -> Array:
    """One embedding per text.

    Parameters
    ----------
    features
        (t, p), or (t, k, p) for k prompts per text, whose unit-length embeddings are averaged.
    n_features
        p of the encoder.
    name
        Name for messages.

    Returns
    -------
    ndarray of shape (t, p)

    Raises
    ------
    InputError
        If the shape is another or a value is not finite.
    """
    array = np.atleast_2d(np.asarray(features, dtype=np.float64))
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[-1] != n_features:
        raise InputError(
            f"{name} has shape {np.shape(features)}, expected (n_texts, {n_features}) or (n_texts, n_prompts, "
            f"{n_features}) as the encoder has {n_features} features: embed the texts with the encoder's backbone."
        )
    check_finite(array.reshape(-1, n_features), name)
    if array.ndim == 2:
        return array
    mean: Array = to_unit_length(array.reshape(-1, n_features)).reshape(array.shape).mean(axis=1)
    return mean


def text_directions(texts: Array, versus: Array | None, background: Array | None, pool: Pool) -> Directions:
    """Directions of texts, free of what all texts share.

    Parameters
    ----------
    texts
        Embeddings (t, p).
    versus
        Embeddings of the texts to contrast each with (n_versus, p); None for a contrast with texts in general.
    background
        Embeddings of many texts of all kinds (n_background, p); None to take `texts` for it.
    pool
        Of images.

    Returns
    -------
    Directions

    Raises
    ------
    InputError
        If a text is the same as what it is contrasted with, or all background texts are the same.
    """
    others = texts if background is None else background
    origin = _origin(others, pool) if versus is None else versus.mean(axis=0)
    raw = texts - origin
    length = np.linalg.norm(raw, axis=1)
    empty = np.flatnonzero(length <= 1e-6 * np.linalg.norm(texts, axis=1))
    if empty.size:
        raise InputError(
            f"text {empty[0]} (counting from 0) does not differ from what it is contrasted with: "
            "pass other texts to contrast it with, or more background texts."
        )
    along = pool.spread(raw)
    if others.shape[0] < 2:
        return Directions(raw, np.empty((0, texts.shape[1])))
    deviations = others - others.mean(axis=0)
    spread = pool.spread(deviations)
    typical = float(np.sqrt(np.mean(spread**2)))
    if typical == 0:
        raise InputError(f"background holds {len(others)} texts that are all the same: pass texts of all kinds.")
    scaled = raw * _ratio(typical, along)[:, None]
    if others.shape[0] < FEWEST_BACKGROUND:
        return Directions(scaled, np.empty((0, texts.shape[1])))
    return Directions(scaled, deviations * _ratio(typical, spread)[:, None])


def _origin(others: Array, pool: Pool) -> Array:
    """Mean text; of one text alone nothing is left, so the images' mean stands in, with the gap."""
    if others.shape[0] > 1:
        if others.shape[0] < FEWEST_BACKGROUND:
            logger.warning(
                "%d texts say little about texts in general: pass background texts of all kinds, at least %d",
                others.shape[0],
                FEWEST_BACKGROUND,
            )
        return np.asarray(others.mean(axis=0))
    logger.warning("one text without background or contrast is compared with the mean image, over the gap between them")
    return pool.mean


def _ratio(typical: float, spread: Array) -> Array:
    """Factor to the typical spread; 1 where images do not vary along a direction at all."""
    return np.where(spread > 0, typical / np.where(spread > 0, spread, 1.0), 1.0)
