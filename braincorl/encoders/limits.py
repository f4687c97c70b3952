"""Choices that ended at the limit of what there was to choose from, with the share of voxels.

Ridge chooses α for every voxel; all other encoders but the published networks weigh shares of signal by their evidence,
and have chosen one where it gets more than half of the probability. Where the end of such a grid wins, the right value
may lie beyond it. Two ends are bounds by nature, with nothing beyond: an α so large that the mean is predicted, and a
share of signal of 0. They are right for a voxel that the features say nothing of, and worth a word only where that is
most of them.

    v voxels, g values of a grid
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from braincorl.closed_forms.attention_posterior import AttentionPosterior
from braincorl.closed_forms.evidence import EvidencePosterior
from braincorl.closed_forms.feature_spaces import SpacesPosterior
from braincorl.encoders.base import LinearEncoder
from braincorl.encoders.ridge import RidgeEncoder

# From which share of the voxels on an end of a grid, and a bound by nature, are told.
TOLD_END = 0.1
TOLD_BOUND = 0.5  # some voxels without signal are everywhere; when most are, something is wrong


@dataclass(frozen=True)
class AtLimit:
    """Voxels whose choice ended at one limit.

    Attributes
    ----------
    share
        Of the voxels that vary, between 0 and 1.
    chose
        What they did, to follow "10 % of the voxels".
    remark
        What that means and what can be done.
    bound
        Whether the limit is one by nature.
    """

    share: float
    chose: str
    remark: str
    bound: bool

    @property
    def worth_telling(self) -> bool:
        """Whether enough voxels are there."""
        return self.share >= (TOLD_BOUND if self.bound else TOLD_END)

    def __str__(self) -> str:
        return f"{self.share:.0%} of the voxels {self.chose}: {self.remark}"


def choices_at_limit(encoder: LinearEncoder) -> list[AtLimit]:
    """Say which choices of a fitted encoder ended at a limit, and in which share of the voxels.

    Parameters
    ----------
    encoder
        Fitted. Published networks choose nothing.

    Returns
    -------
    list of AtLimit
        One per limit, also where no voxel is at it; empty where there was nothing to choose.
    """
    if isinstance(encoder, RidgeEncoder):
        return _limits_of_alpha(encoder)
    posterior = getattr(encoder, "posterior_", None)
    if isinstance(posterior, EvidencePosterior):
        varying = posterior.variance.max(axis=0) > 0
        return _limits_of_signal(posterior.signal_grid, posterior.probability[:, varying])
    if isinstance(posterior, SpacesPosterior):
        varying = posterior.variance.max(axis=(0, 1)) > 0
        return _limits_of_signal(posterior.signal_grid, posterior.probability.sum(axis=0)[:, varying])
    if isinstance(posterior, AttentionPosterior):
        probability = posterior.probability[posterior.deviation > 0]
        signals, of_head = np.unique(posterior.head_signal, return_inverse=True)
        summed = np.stack([probability[:, of_head == level].sum(axis=1) for level in range(len(signals))])
        return _limits_of_signal(signals, summed)
    return []


def mean_limits(fits: Sequence[Sequence[AtLimit]]) -> list[AtLimit]:
    """Mean shares over fits of one encoder, in the words of the first, whose grid may differ a little."""
    return [replace(same[0], share=float(np.mean([limit.share for limit in same]))) for same in zip(*fits, strict=True)]


def tell_limits(limits: Iterable[AtLimit]) -> str:
    """Sentence on those limits that are worth telling; empty if none is."""
    told = [str(limit) for limit in limits if limit.worth_telling]
    return "; ".join(told) + "." if told else ""


def _limits_of_alpha(encoder: RidgeEncoder) -> list[AtLimit]:
    if encoder.alpha_limits_ is None or not encoder.alpha_limits_[0] < encoder.alpha_limits_[1]:
        return []
    lowest, highest = encoder.alpha_limits_
    alpha = encoder.alpha_[np.isfinite(encoder.cv_r2_)]  # constant voxels choose nothing
    automatic = isinstance(encoder.alphas, str)
    few = "they are cleaner than fMRI's, or too few images make the choice a lottery; RidgeEncoder(alphas=…) takes a "
    few += "wider grid, and bayesian-ridge averages instead of choosing"
    mean = "that predicts the mean, so cross-validation found nothing in them that the features explain"
    return [
        AtLimit(_share(alpha <= lowest), f"chose the smallest alpha of the grid ({lowest:.3g})", few, False),
        AtLimit(
            _share(alpha >= highest),
            f"chose the largest alpha of the grid ({highest:.3g})",
            mean if automatic else "the best may be larger; pass larger alphas",
            automatic,
        ),
    ]


def _limits_of_signal(grid: npt.NDArray[np.floating], probability: npt.NDArray[np.floating]) -> list[AtLimit]:
    """Limits of shares of signal (g,), given their probabilities (g, v)."""
    lowest, highest = float(grid.min()), float(grid.max())
    if lowest == highest:
        return []
    cleaner = (
        "they are cleaner than fMRI's, and predicted deviations may be too wide; BayesianRidgeEncoder(signal_grid=…"
    )
    cleaner += ") takes larger shares"
    nothing = "nothing that the features explain was found in them"
    return [
        AtLimit(
            _share(probability[grid.argmax()] > 0.5),
            f"have the largest share of signal at hand ({highest:g})",
            cleaner,
            False,
        ),
        AtLimit(
            _share(probability[grid.argmin()] > 0.5),
            f"have the smallest share of signal at hand ({lowest:g})",
            nothing if lowest == 0 else "the right one may be smaller; pass a signal_grid that begins at 0",
            lowest == 0,
        ),
    ]


def _share(at_limit: npt.NDArray[np.bool_]) -> float:
    return float(at_limit.mean()) if at_limit.size else 0.0
