"""How well a mixture predicts people that it was not learned from: the score by which settings are chosen.

A third of the images is kept from the teachers; responses of a left-out person to those images are predicted from a few
of the others, as a new person's would be. The score is the mean log density of the measured responses under the
predictive normal distribution, so that both wrong and overconfident predictions cost. Images have to be left out as
well as the person, and nearly all of the others have to teach: what no feature explains about an image is shared by
people, and a prior that is bent to it predicts other people's responses to the same images well and to new ones badly,
worst where there are about as many images as features. (The evidence of all responses together is a poor guide here:
where features outnumber images, it cannot tell signal from noise.)

The same predictions tell by how much intervals are too narrow, for the same reason.

Letters: n images, p features, v voxels, c components.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.priors.context import Context, reduce_context
from braincorl.priors.expectation import Mixture, Person, evidence_stack, level_probability
from braincorl.priors.person import update_levels, with_shared_scale
from braincorl.priors.posterior import make_frames, mixture_evidence
from braincorl.priors.predictive import predictive_std, solve_mixture
from braincorl.validation import FloatArray

# Images of the contexts: priors matter where images are few. Images to predict, and the fewest that tell anything.
_CONTEXTS, _MOST_QUERIES = (10, 40), 60
# Share of responses that an interval is to hold, by which its width is judged, and that interval's half width.
_SHARE, _HALF_WIDTH = 0.9, 1.645


@dataclass(frozen=True)
class Trial:
    """A context of a left-out person, and responses to be predicted from it.

    Attributes
    ----------
    context
        Sufficient statistics.
    X
        Features of other images (n, p).
    y
        Responses to them (n, v).
    region
        Index of each voxel's region (v,), -1 where unknown.
    """

    context: Context
    X: FloatArray
    y: FloatArray
    region: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Examinee:
    """A person in one division of the images: a teacher of others, or left out.

    Attributes
    ----------
    person
        The images that teach.
    trials
        Predictions of the other images; without any, a mixture is scored by the evidence of `person`.
    """

    person: Person
    trials: tuple[Trial, ...] = ()


def make_trials(
    X: FloatArray, y: FloatArray, left_out: npt.NDArray[np.bool_], region: npt.NDArray[np.intp]
) -> tuple[Trial, ...]:
    """Predict left-out images from few and from more of the others.

    Parameters
    ----------
    X
        Features (n, p).
    y
        Responses (n, v).
    left_out
        Images to be predicted (n,).
    region
        Index of each voxel's region (v,).

    Returns
    -------
    tuple of Trial
        At most half of the other images are used as context.
    """
    known, new = np.flatnonzero(~left_out), np.flatnonzero(left_out)[:_MOST_QUERIES]
    found = []
    for n_images in sorted({min(count, known.size // 2) for count in _CONTEXTS}):
        context = known[np.linspace(0, known.size - 1, n_images).astype(np.intp)]
        varying = (np.ptp(y[context], axis=0) > 0) & (np.ptp(y[new], axis=0) > 0)
        statistics = with_shared_scale(reduce_context(X[context], y[np.ix_(context, varying)]))
        found.append(Trial(statistics, X[new], y[np.ix_(new, varying)], region[varying]))
    return tuple(found)


def examine(mixture: Mixture, examinee: Examinee) -> tuple[float, float]:
    """Score a mixture on a person, and the widths of its intervals.

    Parameters
    ----------
    mixture
        Learned without that person.
    examinee
        The person.

    Returns
    -------
    score : float
        Mean log density of left-out responses in units of each voxel's standard deviation; without trials, mean log
        evidence of a voxel.
    ratio : float
        Factor by which intervals must be widened to hold what they promise; 1 without trials.
    """
    if not examinee.trials:
        return _evidence(mixture, examinee.person), 1.0
    densities, ratios = [], []
    for trial in examinee.trials:
        error, std = _errors(mixture, trial)
        densities.append((-0.5 * error**2 - np.log(std)).mean())
        ratios.append(np.quantile(np.abs(error), _SHARE) / _HALF_WIDTH)
    return float(np.mean(densities) - 0.5 * np.log(2 * np.pi)), float(np.mean(ratios))


def _errors(mixture: Mixture, trial: Trial) -> tuple[FloatArray, FloatArray]:
    """Errors in units of the predicted standard deviation, and that in units of the voxel's (n, v)."""
    log_weight = np.log(mixture.region_weight[trial.region]).T
    context, centre = trial.context, trial.context.feature_mean
    components = update_levels(context, mixture.components, log_weight)
    posterior = solve_mixture(context, components, log_weight, centre)
    std = predictive_std(context, components, log_weight, centre, trial.X)
    error = trial.y - trial.X @ posterior.coef.T - posterior.intercept
    return error / std, std / trial.y.std(axis=0)


def _evidence(mixture: Mixture, person: Person) -> float:
    frames = make_frames(person.context, mixture.components)
    log_weight = np.log(mixture.region_weight[person.region]).T
    levels = level_probability(mixture.components, person.context)
    _, marginal = mixture_evidence(evidence_stack(frames, person.context), log_weight, levels)
    return float(marginal.mean())
