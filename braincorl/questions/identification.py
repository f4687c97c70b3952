"""Which image was seen? Candidates are ranked by how likely they make the measured responses.

An encoder says what every voxel would respond to a candidate c and how far a response may lie from that,

    y ~ N(μ_c, D_c R D_c)    D_c = diag(predictive standard deviation),   R the correlation of noise between voxels

and the candidates are ranked by log p(y | c) = -½ |R^-½ D_c⁻¹ (y - μ_c)|² - Σ log D_c + const. Errors of the encoder
come from the same noise that its context had, so R stands for both. With R = I this is the usual distance, in which a
thousand voxels of one region count as a thousand witnesses; with the noise that they share they count as the few that
they are. An encoder knows less of a candidate that is unlike its context, so D_c differs between candidates. All voxels
then speak for or against a candidate by how widely they scatter, which is little to know of an image and easily wrong
for thousands of voxels at once, so D is the mean over candidates unless `spread` is "candidate"
(`benchmarks/questions.py identify` measures both).

R must be estimated, from repeats or from residuals of some images, and these hold what the encoder misses of the
signal, too: weighing by a poor R costs more than it gains. So three rankings are there: `independent` (R = I, the
default), `shared`, and `correlation`, that of measured and predicted patterns over voxels, as most studies do. Under
`independent` an R that is given still says how sure to be: a log likelihood ratio along a difference a of two
standardised predictions varies by aᵀRa where independent noise would make it vary by aᵀa, so ratios are multiplied by

    temperature = Σ aᵀa / Σ aᵀRa     over the candidates' differences from their mean

With C candidates, b of which beat the one that was seen, a subset of m that contains it puts it first with the
probability that none of the b is among m - 1 drawn of C - 1 (hypergeometric): accuracy against the number of candidates
needs no drawing.

Letters: t trials, c candidates, p features, v voxels.

References
----------
Kay, Naselaris, Prenger & Gallant, Identifying natural images from human brain activity, Nature 452 (2008).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import hypergeom

from braincorl.batching import batches
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.questions.noise import NoiseModel
from braincorl.questions.resampling import check_level
from braincorl.validation import FloatArray, check_finite

Array = npt.NDArray[np.float64]
Ranking = Literal["shared", "independent", "correlation"]
Spread = Literal["candidate", "mean"]

RANKINGS: dict[Ranking, str] = {
    "independent": "candidates are ranked as if voxels shared no noise",
    "shared": "voxels are weighed by the noise that they share",
    "correlation": "correlation of measured and predicted patterns over voxels",
}

# The spread of predictions is a mean over this many candidates: it hardly differs between images.
_SPREAD_FROM = 64

# Of the largest log likelihood of a trial: below is rounding.
_TIE = 1e-12


@dataclass(frozen=True)
class Identification:
    """How likely every candidate is to have been seen.

    Attributes
    ----------
    log_likelihood
        log p(y | candidate) up to a constant of the trial (n_trials, n_candidates); for "correlation", r itself.
    truth
        The candidate that was seen (n_trials,), -1 where unknown.
    ranking
        "shared", "independent" or "correlation".
    temperature
        What log likelihoods are multiplied by to be as sure as shared noise allows; no rank depends on it.
    """

    log_likelihood: Array
    truth: npt.NDArray[np.intp]
    ranking: str
    temperature: float = 1.0

    @property
    def ranks(self) -> npt.NDArray[np.int64]:
        """Rank of the candidate that was seen, 1 the best, ties in the middle rounded up; 0 if unknown (n_trials,)."""
        n = np.arange(len(self.truth))
        seen = self.log_likelihood[n, self.truth][:, None]
        # Equal candidates at other places of a matrix product differ by its rounding.
        tie = _TIE * np.abs(self.log_likelihood).max(axis=1, keepdims=True)
        better = (self.log_likelihood > seen + tie).sum(axis=1)
        equal = (np.abs(self.log_likelihood - seen) <= tie).sum(axis=1) - 1
        return np.where(self.truth < 0, 0, 1 + better + (equal + 1) // 2).astype(np.int64)

    @property
    def probability(self) -> Array:
        """Probability of each candidate, if one of them was seen and all were equally likely before; rows sum to 1.

        As sure as the model is: it is calibrated only as far as the encoder and its noise are Gaussian.
        """
        if self.ranking == "correlation":
            raise InputError("correlation of patterns gives no probability: rank by 'shared' or 'independent'.")
        best = self.log_likelihood.max(axis=1, keepdims=True)
        relative = np.exp(self.temperature * (self.log_likelihood - best))
        return np.asarray(relative / relative.sum(axis=1, keepdims=True))

    def best(self, n: int = 5) -> npt.NDArray[np.intp]:
        """Give the most likely candidates of each trial (n_trials, n)."""
        return np.asarray(np.argsort(-self.log_likelihood, axis=1, kind="stable")[:, :n])

    def table(
        self,
        groups: npt.ArrayLike | None = None,
        n_candidates: Sequence[int] | None = None,
        n_bootstrap: int = 1000,
        level: float = 0.95,
        random_state: int = 0,
    ) -> pd.DataFrame:
        """Accuracy against the number of candidates, with chance levels and intervals.

        Parameters
        ----------
        groups
            Trials of one group, such as those of one image, are drawn together (n_trials,); by default each alone.
        n_candidates
            Sizes of the set of candidates; by default 2, 5, 10, … up to all.
        n_bootstrap
            Samples of the groups for intervals.
        level
            Confidence of these.
        random_state
            Seed.

        Returns
        -------
        pandas.DataFrame
            `n_candidates`, `top1`, `top1_low`, `top1_high`, `top1_chance`, the same for `top5`, and `median_rank`,
            `median_rank_low`, `median_rank_high`, `median_rank_chance`.

        Raises
        ------
        InputError
            If nothing is known of what was seen, or an option is impossible.
        """
        check_level(level)
        ranks = self.ranks[self.truth >= 0]
        if ranks.size == 0:
            raise InputError("what was seen is unknown in every trial: give the truth to count how often it is found.")
        labels = np.arange(ranks.size) if groups is None else np.asarray(groups)[self.truth >= 0]
        counts = _draw_groups(labels, n_bootstrap, random_state)
        total = self.log_likelihood.shape[1]
        medians = np.array([_weighted_median(ranks, count) for count in counts])
        rows = []
        for size in candidate_numbers(total) if n_candidates is None else n_candidates:
            if not 2 <= size <= total:
                raise InputError(f"n_candidates has {size}, but there are {total}: pass numbers from 2 to that.")
            row: dict[str, float] = {"n_candidates": size}
            for top in (1, 5):
                row |= _with_interval(f"top{top}", top_accuracy(ranks, total, size, top), counts, level)
                row[f"top{top}_chance"] = min(top, size) / size
            scaled = 1 + (size - 1) / max(total - 1, 1) * (np.r_[np.median(ranks), medians] - 1)
            row["median_rank"] = scaled[0]
            bounds = np.percentile(scaled[1:], [50 * (1 - level), 50 * (1 + level)])
            row["median_rank_low"], row["median_rank_high"] = bounds
            row["median_rank_chance"] = (size + 1) / 2
            rows.append(row)
        return pd.DataFrame(rows)


def identify(
    encoder: LinearEncoder,
    responses: npt.ArrayLike,
    candidates: npt.ArrayLike,
    truth: npt.ArrayLike | None = None,
    *,
    noise: NoiseModel | None = None,
    ranking: Ranking = "independent",
    spread: Spread = "mean",
    noise_ratio: float = 1.0,
    voxels: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | None = None,
) -> Identification:
    """Rank candidate images by how likely they were seen.

    Parameters
    ----------
    encoder
        Fitted on images that are not to be identified.
    responses
        Measured responses, single trials or means (n_trials, n_voxels), in the units of the encoder's context.
    candidates
        Features of images, or of words in the same space (n_candidates, n_features).
    truth
        The candidate that each trial showed (n_trials,), -1 where unknown; by default trial i showed candidate i.
    noise
        Noise that voxels share, from `context_noise` or `repeat_noise`; by default independent.
    ranking
        "independent" ranks as if voxels shared no noise, and takes from `noise` how sure to be; "shared" weighs voxels
        by it; "correlation" ranks by correlation of patterns.
    spread
        "mean": all candidates have the mean of their predictive standard deviations; "candidate": each has those of its
        own features. The same for encoders without a predictive distribution.
    noise_ratio
        Noise variance of a response here over that of a response of the context, such as 3 for single trials of an
        encoder that was fitted on means of three.
    voxels
        Which of the encoder's to use; by default all.

    Returns
    -------
    Identification
        `ranks` (n_trials,), `table()`, `probability`.

    Raises
    ------
    InputError
        If shapes do not match, or values are not finite.
    """
    y, chosen = checked_responses(encoder, responses, voxels)
    features = np.asarray(candidates, dtype=np.float64)
    if features.ndim != 2 or features.shape[1] != encoder.coef_.shape[1] or len(features) < 2:
        raise InputError(
            f"candidates has shape {features.shape}, expected (n_candidates, {encoder.coef_.shape[1]}), at least two: "
            "the features that the encoder was fitted on."
        )
    check_finite(features, "candidates")
    check_noise(noise, encoder)
    seen = _checked_truth(truth, len(y), len(features))
    how, whose = ranking, spread
    if how not in ("shared", "independent", "correlation"):
        raise InputError(f"ranking must be 'shared', 'independent' or 'correlation', but is {how!r}.")
    if whose not in ("candidate", "mean"):
        raise InputError(f"spread must be 'candidate' or 'mean', but is {whose!r}.")
    if how == "shared" and noise is None:
        raise InputError("ranking by shared noise needs noise: estimate it with context_noise or repeat_noise.")
    mean_spread = predictive_spread(encoder, features, noise_ratio)[chosen]
    weights = encoder.coef_[chosen].T.astype(np.float64)
    centre = features.mean(axis=0)
    centred = features - centre
    # Of the mean over candidates: distances are of differences, and a common point taken off both keeps digits.
    y = y - (centre @ weights + encoder.intercept_[chosen])
    # Predictions of some candidates at a time: all of them times all voxels would be the size of a data set.
    parts = batches(len(features), 8 * 5 * max(encoder.coef_.shape[0], 1))
    scores = np.empty((len(y), len(features)))
    if how == "correlation":
        ours = _unit_patterns(y)
        for part in parts:
            scores[:, part] = ours @ _unit_patterns(centred[part] @ weights).T
        return Identification(scores, seen, how)
    usable = np.isfinite(mean_spread) & (mean_spread > 0)
    scale = mean_spread[usable]
    ours, weights = y[:, usable] / scale, weights[:, usable] / scale
    model = None if noise is None else noise.select(chosen[usable])
    weigh = model.whiten if model is not None and how == "shared" else None
    plain, shared = 0.0, 0.0
    for part in parts:
        theirs = centred[part] @ weights
        if model is not None and weigh is None:
            along = model.variance_along(theirs)
            plain, shared = plain + along[0], shared + along[1]
        own = _candidate_spread(encoder, features[part], noise_ratio) if whose == "candidate" else None
        ratios = None if own is None else own[:, chosen[usable]] / scale
        scores[:, part] = _log_densities(ours, theirs, ratios, weigh)
    return Identification(scores, seen, how, min(1.0, plain / shared) if shared > 0 else 1.0)


def _log_densities(y: Array, means: Array, std: Array | None, whiten: Callable[[FloatArray], Array] | None) -> Array:
    """Log density of responses (t, v) under each candidate's mean and deviation (c, v), up to a constant (t, c)."""
    if std is None:
        ours, theirs = (y, means) if whiten is None else (whiten(y), whiten(means))
        squares = np.square(ours).sum(axis=1)[:, None]
        return np.asarray(ours @ theirs.T - 0.5 * np.square(theirs).sum(axis=1) - 0.5 * squares)
    volume = np.log(std).sum(axis=1)
    if whiten is None:
        precision = 1.0 / np.square(std)
        distance = np.square(y) @ precision.T - 2 * y @ (means * precision).T + (means**2 * precision).sum(axis=1)
        return np.asarray(-0.5 * distance - volume)
    # Every candidate has directions of its own in which noise is shared.
    distances = [np.square(whiten((y - mean) / own)).sum(axis=1) for mean, own in zip(means, std, strict=True)]
    return np.asarray(-0.5 * np.stack(distances, axis=1) - volume)


def context_noise(encoder: LinearEncoder, X: npt.ArrayLike, y: npt.ArrayLike) -> NoiseModel:
    """Estimate noise that voxels share from the residuals of an encoder's own context.

    Parameters
    ----------
    encoder
        Fitted on these images.
    X
        Their features (n_images, n_features).
    y
        Responses (n_images, n_voxels).

    Returns
    -------
    NoiseModel
        Residuals of a fit are smaller than noise, but alike in all voxels: correlations between voxels stay.
    """
    responses, _ = checked_responses(encoder, y, None)
    features = np.asarray(X, dtype=np.float64)
    residuals = responses - features @ encoder.coef_.T.astype(np.float64) - encoder.intercept_
    n = len(residuals)
    return NoiseModel.of(residuals - residuals.mean(axis=0), f"residuals of the {n} context images")


def repeat_noise(responses: npt.ArrayLike, image_ids: npt.ArrayLike) -> NoiseModel:
    """Estimate noise that voxels share from trials of the same image.

    Parameters
    ----------
    responses
        Single trials (n_trials, n_voxels).
    image_ids
        What each showed (n_trials,).

    Returns
    -------
    NoiseModel

    Raises
    ------
    InputError
        If fewer than three trials repeat an image.
    """
    y, ids = np.asarray(responses, dtype=np.float64), np.asarray(image_ids)
    if y.ndim != 2 or ids.shape != (len(y),):
        raise InputError(f"responses has shape {y.shape} and image_ids {ids.shape}: expected one image per trial.")
    _, index, counts = np.unique(ids, return_inverse=True, return_counts=True)
    means = np.zeros((counts.size, y.shape[1]))
    np.add.at(means, index, y)
    means /= counts[:, None]
    repeated = counts[index] > 1
    # The mean of k trials holds a k-th of the noise of each.
    residuals = (y - means[index])[repeated] * np.sqrt(counts / np.maximum(counts - 1, 1))[index][repeated, None]
    return NoiseModel.of(residuals, f"{int(repeated.sum())} trials of repeated images")


def predictive_spread(encoder: LinearEncoder, candidates: FloatArray, noise_ratio: float = 1.0) -> Array:
    """Take the standard deviation of a new response, of each voxel (n_voxels,), over candidates; or of noise alone.

    Parameters
    ----------
    encoder
        Fitted.
    candidates
        Features (n_candidates, n_features).
    noise_ratio
        Noise variance of the new response over that of a response of the context.

    Raises
    ------
    InputError
        If `noise_ratio` is not above 0.
    """
    if not (np.isfinite(noise_ratio) and noise_ratio > 0):
        raise InputError(f"noise_ratio must be above 0, but is {noise_ratio}: 1 is a response as those of the context.")
    some = candidates[:: max(1, len(candidates) // _SPREAD_FROM)][:_SPREAD_FROM]
    std = _candidate_spread(encoder, some, noise_ratio)
    if std is None:  # an encoder without a predictive distribution
        return np.sqrt(noise_ratio * np.asarray(encoder.noise_variance_, dtype=np.float64))
    return np.asarray(np.sqrt(np.mean(np.square(std), axis=0)))


def _candidate_spread(encoder: LinearEncoder, features: FloatArray, noise_ratio: float) -> Array | None:
    """Predictive standard deviation at every candidate (c, v); None where the encoder gives none."""
    try:
        _, std = encoder.predict(features.astype(encoder.coef_.dtype), return_std=True)
    except InputError:
        return None
    std = np.asarray(std[:, None] if std.ndim == 1 else std, dtype=np.float64)
    if noise_ratio == 1:
        return std
    more = (noise_ratio - 1) * np.asarray(encoder.noise_variance_, dtype=np.float64)
    # Less noise than in the context never takes away what the encoder itself does not know.
    return np.asarray(np.sqrt(np.maximum(np.square(std) + more, 1e-3 * np.square(std))))


def top_accuracy(ranks: npt.NDArray[np.integer], n_all: int, size: int, top: int) -> Array:
    """Probability that each trial's image is among the best `top` of `size` candidates drawn of all, itself included.

    Parameters
    ----------
    ranks
        Rank among all candidates (n_trials,).
    n_all
        All candidates.
    size
        Candidates of a draw.
    top
        Best ones that count.

    Returns
    -------
    ndarray of shape (n_trials,)
    """
    return np.asarray(hypergeom.cdf(top - 1, n_all - 1, ranks - 1, size - 1), dtype=np.float64)


def candidate_numbers(n_all: int) -> list[int]:
    """2, 5, 10, 20, 50, … and all."""
    steps = [factor * 10**power for power in range(5) for factor in (1, 2, 5)]
    return [*(step for step in steps if 2 <= step < n_all), n_all]


def checked_responses(
    encoder: LinearEncoder, responses: npt.ArrayLike, voxels: npt.NDArray[np.bool_] | npt.NDArray[np.intp] | None
) -> tuple[Array, npt.NDArray[np.intp]]:
    """Responses of the chosen voxels (n_trials, n_chosen), and which these are.

    Raises
    ------
    InputError
        If the shape is not (n_trials, n_voxels), a value is not finite, or no voxel is chosen.
    """
    y = np.asarray(responses, dtype=np.float64)
    n_voxels = encoder.coef_.shape[0]
    if y.ndim != 2 or y.shape[1] != n_voxels:
        raise InputError(f"responses has shape {y.shape}, expected (n_trials, n_voxels) with {n_voxels} voxels.")
    chosen = np.arange(n_voxels) if voxels is None else np.arange(n_voxels)[voxels]
    if chosen.size == 0:
        raise InputError("voxels chooses none of the encoder's voxels: choose at least one.")
    y = y[:, chosen]
    check_finite(y, "responses")
    return y, chosen


def check_noise(noise: NoiseModel | None, encoder: LinearEncoder) -> None:
    """Refuse noise of other voxels than the encoder's.

    Raises
    ------
    InputError
        Saying both numbers.
    """
    if noise is not None and len(noise.factors) != encoder.coef_.shape[0]:
        raise InputError(f"noise is of {len(noise.factors)} voxels, the encoder of {encoder.coef_.shape[0]}.")


def _checked_truth(truth: npt.ArrayLike | None, n_trials: int, n_candidates: int) -> npt.NDArray[np.intp]:
    if truth is None:
        if n_trials > n_candidates:
            raise InputError(f"{n_trials} trials cannot have shown {n_candidates} candidates in order: pass truth.")
        return np.arange(n_trials)
    seen = np.asarray(truth)
    whole = seen.size == 0 or np.issubdtype(seen.dtype, np.integer)
    if seen.shape != (n_trials,) or not whole or not ((seen >= -1) & (seen < n_candidates)).all():
        raise InputError(f"truth must be one number of a candidate per trial, -1 where unknown, for {n_trials} trials.")
    return seen.astype(np.intp)


def _unit_patterns(patterns: Array) -> Array:
    """Patterns over voxels without their mean, of unit length: their products are correlations."""
    centred = patterns - patterns.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-300))


def _draw_groups(labels: npt.NDArray[np.generic], n_bootstrap: int, random_state: int) -> Array:
    """Draw how often each trial counts, groups as a whole (n_bootstrap, n_trials)."""
    if n_bootstrap < 1:
        raise InputError(f"n_bootstrap must be at least 1, but is {n_bootstrap}.")
    _, index = np.unique(labels, return_inverse=True)
    n = int(index.max()) + 1
    drawn = np.random.default_rng(random_state).multinomial(n, np.full(n, 1 / n), size=n_bootstrap)
    return np.asarray(drawn[:, index], dtype=np.float64)


def _with_interval(name: str, values: Array, counts: Array, level: float) -> dict[str, float]:
    drawn = counts @ values / counts.sum(axis=1)
    low, high = np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    return {name: float(values.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def _weighted_median(values: npt.NDArray[np.integer], counts: Array) -> float:
    return float(np.median(np.repeat(values, counts.astype(np.intp))))
