"""What was this person looking at? A posterior over feature vectors from a response pattern, and what lies nearest.

`braincorl.questions.identification` asks which of some candidates was seen; here nothing is assumed of what was seen
but that its features lie among those of a pool of images,

    x ~ N(m, S)        S = L Lᵀ, the pool's covariance, shrunk
    y ~ N(W x + b, D R D)

with the weights W of an encoder, D how far a response lies from its prediction (mean over the pool), and R the
correlation of noise between voxels (`braincorl.questions.noise`). Both are Gaussian, so with x = m + L u

    u | y ~ N(M⁻¹ G ỹ, M⁻¹)        M = I + G Gᵀ,   G = Lᵀ Wᵀ D⁻¹ R^-½,   ỹ = R^-½ D⁻¹ (y - W m - b)

in k dimensions, those of the pool, whatever the number of voxels; M serves all responses. Features outside the span of
the pool are not looked for.

As in identification, R is estimated from few residuals, and weighing by it costs where it is poor. So by default noise
that voxels share only says how sure to be: R = I / temperature, with

    temperature = Σ aᵀa / Σ aᵀRa     over a = D⁻¹ W L, what images make voxels do

Without it a thousand voxels are a thousand witnesses, and intervals far too narrow (`benchmarks/questions.py decode`).

What lies nearest is told by the cosine between a candidate c and x, both from an origin: the pool's mean for images,
the words' own mean for words, as texts lie in a region of their own (`braincorl.analysis.words.text_directions`). Its
mean and interval, and how often each candidate is the nearest of all, are over draws of the posterior.

Letters: t responses, c candidates, p features, v voxels, k dimensions of the pool, d draws.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from braincorl.batching import batches
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.questions.identification import check_noise, checked_responses, predictive_spread
from braincorl.questions.noise import NoiseModel, ledoit_wolf
from braincorl.questions.resampling import check_level, interval
from braincorl.validation import FloatArray, check_finite

Array = npt.NDArray[np.float64]

_RANK_TOLERANCE = 1e-12  # of the largest variance: directions below are rounding
_EXAMPLES = 64  # images of the pool, over which the spread of predictions is taken


@dataclass(frozen=True)
class FeaturePrior:
    """What features of images are like: Gaussian, from a pool.

    Attributes
    ----------
    mean
        m (p,).
    factor
        L with L Lᵀ the covariance (p, k).
    examples
        Some of the images (n, p), over which the spread of predictions is taken.
    """

    mean: Array
    factor: Array
    examples: Array

    @classmethod
    def of(cls, pool: npt.ArrayLike) -> "FeaturePrior":
        """Learn from features of images (n_pool, p): their mean, and their covariance, shrunk as Ledoit and Wolf do.

        Raises
        ------
        InputError
            If there are fewer than three images, none differs, or a value is not finite.
        """
        features = np.asarray(pool, dtype=np.float64)
        if features.ndim != 2 or features.shape[0] < 3:
            raise InputError(
                f"pool has shape {features.shape}: expected (n_images, n_features), at least three images."
            )
        check_finite(features, "pool")
        mean = features.mean(axis=0)
        centred = features - mean
        n, p = centred.shape
        if not np.any(np.ptp(features, axis=0) > 0):
            raise InputError(f"the {n} images of pool all have the same features: pass images of all kinds.")
        shrinkage = ledoit_wolf(centred)
        if p <= n:
            values, vectors = scipy.linalg.eigh(centred.T @ centred / n, check_finite=False)
        else:
            values, dual = scipy.linalg.eigh(centred @ centred.T / n, check_finite=False)
            kept = values > _RANK_TOLERANCE * values[-1]
            values, dual = values[kept], dual[:, kept]
            vectors = centred.T @ (dual / np.sqrt(n * values))
        mean_variance = float(np.square(centred).sum()) / n / p
        variances = (1 - shrinkage) * np.maximum(values, 0.0) + shrinkage * mean_variance
        return cls(mean, vectors * np.sqrt(variances), features[:: max(1, n // _EXAMPLES)][:_EXAMPLES])


@dataclass(frozen=True)
class FeaturePosterior:
    """Features of what was seen, as far as the responses tell: x ~ N(mean, factor factorᵀ).

    Attributes
    ----------
    mean
        Of each response (t, p).
    factor
        Square root of the covariance (p, k), the same for all responses.
    prior
        What was known before.
    """

    mean: Array
    factor: Array
    prior: FeaturePrior

    @property
    def std(self) -> Array:
        """Standard deviation of each feature (p,)."""
        return np.asarray(np.linalg.norm(self.factor, axis=1))

    @property
    def settled(self) -> float:
        """Share of the variance of features over images that a response settles, from 0 to 1."""
        return float(1.0 - np.square(self.factor).sum() / np.square(self.prior.factor).sum())

    def nearest(
        self,
        candidates: npt.ArrayLike,
        *,
        origin: npt.ArrayLike | None = None,
        n_draws: int = 500,
        level: float = 0.95,
        random_state: int = 0,
    ) -> "Nearest":
        """Tell which candidates lie nearest, by cosine.

        Parameters
        ----------
        candidates
            Features of images or words (c, p).
        origin
            What angles of candidates are measured from (p,): by default the mean of the pool; for words their own mean.
        n_draws
            Draws of the posterior, the same for all responses.
        level
            Confidence of the intervals.
        random_state
            Seed; results do not depend on the number of responses.

        Returns
        -------
        Nearest

        Raises
        ------
        InputError
            If shapes do not match, a candidate lies at the origin, or an option is impossible.
        """
        check_level(level)
        if isinstance(n_draws, bool) or n_draws < 1:
            raise InputError(f"n_draws must be at least 1, but is {n_draws}.")
        features, n_features = np.asarray(candidates, dtype=np.float64), self.prior.mean.size
        if features.ndim != 2 or features.shape[1] != n_features or len(features) < 1:
            raise InputError(f"candidates has shape {features.shape}, expected (n_candidates, {n_features}).")
        check_finite(features, "candidates")
        start = self.prior.mean if origin is None else np.asarray(origin, dtype=np.float64)
        if start.shape != (n_features,):
            raise InputError(f"origin has shape {start.shape}, expected (n_features,) = ({n_features},).")
        directions = features - start
        length = np.linalg.norm(directions, axis=1)
        empty = np.flatnonzero(length <= 1e-9 * max(float(length.max()), float(np.linalg.norm(start)), 1e-300))
        if empty.size:
            raise InputError(
                f"candidate {empty[0]} (counting from 0) lies at the origin, so that it points nowhere: leave it out, "
                "or pass more candidates."
            )
        draws = np.random.default_rng(random_state).standard_normal((n_draws, self.factor.shape[1])) @ self.factor.T
        return _nearest(self.mean - self.prior.mean, draws, directions / length[:, None], level)


@dataclass(frozen=True)
class Nearest:
    """How near candidates lie to what was seen.

    Attributes
    ----------
    similarity
        Posterior mean of the cosine (t, c).
    low, high
        Its interval (t, c).
    probability
        How often the candidate is the nearest of all (t, c); rows sum to 1.
    """

    similarity: Array
    low: Array
    high: Array
    probability: Array

    def best(self, n: int = 5) -> npt.NDArray[np.intp]:
        """Give the candidates of the largest similarity of each response (t, n)."""
        return np.asarray(np.argsort(-self.similarity, axis=1, kind="stable")[:, :n])


def feature_posterior(
    encoder: LinearEncoder,
    responses: npt.ArrayLike,
    pool: npt.ArrayLike | FeaturePrior,
    *,
    noise: NoiseModel | None = None,
    weigh: bool = False,
    noise_ratio: float = 1.0,
    voxels: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | None = None,
) -> FeaturePosterior:
    """Tell from response patterns what features were seen.

    Parameters
    ----------
    encoder
        Fitted on other images than those seen.
    responses
        Measured responses (n_trials, n_voxels), in the units of the encoder's context.
    pool
        Features of images of all kinds (n_pool, n_features), or what was learned from them.
    noise
        Noise that voxels share, from `context_noise` or `repeat_noise`, which says how sure to be; by default
        independent, which is too sure.
    weigh
        Also weigh voxels by that noise.
    noise_ratio
        Noise variance of a response here over that of a response of the context, such as 3 for single trials of an
        encoder that was fitted on means of three.
    voxels
        Which of the encoder's to use; by default all.

    Returns
    -------
    FeaturePosterior

    Raises
    ------
    InputError
        If shapes do not match or values are not finite.
    """
    y, chosen = checked_responses(encoder, responses, voxels)
    prior = pool if isinstance(pool, FeaturePrior) else FeaturePrior.of(pool)
    if prior.mean.size != encoder.coef_.shape[1]:
        raise InputError(
            f"pool has {prior.mean.size} features, but the encoder has {encoder.coef_.shape[1]}: embed the pool with "
            "the encoder's backbone."
        )
    check_noise(noise, encoder)
    spread = predictive_spread(encoder, prior.examples, noise_ratio)[chosen]
    usable = np.isfinite(spread) & (spread > 0)
    chosen, y, spread = chosen[usable], y[:, usable], spread[usable]
    weights = encoder.coef_[chosen].astype(np.float64)
    y = (y - weights @ prior.mean - encoder.intercept_[chosen]) / spread
    gain = prior.factor.T @ (weights.T / spread)
    if noise is not None:
        part = noise.select(chosen)
        if weigh:
            y, gain = part.whiten(y), part.whiten(gain)
        else:
            plain, shared = part.variance_along(gain)
            sureness = np.sqrt(min(1.0, plain / shared)) if shared > 0 else 1.0
            y, gain = sureness * y, sureness * gain
    # M = I + G Gᵀ = C Cᵀ: its inverse is C⁻ᵀ C⁻¹, and C⁻ᵀ a square root of that.
    lower = np.linalg.cholesky(np.eye(len(gain)) + gain @ gain.T)
    root = scipy.linalg.solve_triangular(lower, np.eye(len(gain)), lower=True, check_finite=False).T
    mean = prior.mean + y @ gain.T @ root @ root.T @ prior.factor.T
    return FeaturePosterior(mean, prior.factor @ root, prior)


def _nearest(means: FloatArray, draws: Array, directions: Array, level: float) -> Nearest:
    """Cosines of candidates (c, p), of unit length, with means (t, p) and draws around them (d, p)."""
    n, n_candidates, n_draws = len(means), len(directions), len(draws)
    similarity, low, high = (np.empty((n, n_candidates)) for _ in range(3))
    # |m + e|² = |m|² + 2 m·e + |e|², so that no draw of a response is ever made.
    squares = np.square(means).sum(axis=1)[:, None] + 2 * means @ draws.T + np.square(draws).sum(axis=1)
    length = np.sqrt(np.maximum(squares, 1e-300))
    best, nearest = np.full((n, n_draws), -np.inf), np.zeros((n, n_draws), dtype=np.intp)
    for part in batches(n_candidates, 8 * 6 * n_draws):
        along, around = means @ directions[part].T, draws @ directions[part].T
        for trial in range(n):
            cosines = (along[trial] + around) / length[trial][:, None]
            similarity[trial, part] = cosines.mean(axis=0)
            low[trial, part], high[trial, part] = interval(cosines, level)
            top = cosines.argmax(axis=1)
            value = cosines[np.arange(n_draws), top]
            better = value > best[trial]
            best[trial, better], nearest[trial, better] = value[better], part.start + top[better]
    probability = np.stack([np.bincount(row, minlength=n_candidates) for row in nearest]) / n_draws
    return Nearest(similarity, low, high, probability)
