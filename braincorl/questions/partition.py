"""What does each feature space explain of a voxel's responses? Unique, shared, and shares that sum to the whole.

With EV(A) the explained variance, on new images, of the encoder that knows the spaces A, and ŷ_s what space s adds to
the prediction ŷ of the encoder of all spaces,

    unique_s = EV(all) - EV(all but s)                  what is lost without s
    shared   = EV(all) - Σ_s unique_s                   what more than one space could explain
    share_s  = cov(y + (y - ŷ), ŷ_s) / Var(y)           the product measure (Pratt): Σ_s share_s = EV(all) exactly
    alone_s  = EV(s)

All are differences of scores on new images: none is forced to be positive, since that would bias its mean. Intervals
are a bootstrap over images (`braincorl.questions.resampling`), with the same images for all voxels.

Letters: n images, v voxels, s spaces, b samples.

References
----------
Pratt, Dividing the indivisible, Tampere Conference in Statistics (1987); Dupré la Tour, Eickenberg, Nunez-Elizalde &
Gallant, Feature-space selection with banded ridge regression, NeuroImage 264 (2022).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl.encoders.banded_ridge import BandedRidgeEncoder
from braincorl.errors import InputError
from braincorl.metrics import mean_over_voxels
from braincorl.questions.resampling import (
    ALL,
    RESAMPLED_ROUNDING,
    RegionSamples,
    check_level,
    draw_counts,
    interval,
    known_voxels,
    name_regions,
    resampled_covariance,
    resampled_ev,
    resampled_variance,
)
from braincorl.storage.files import Progress

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VariancePartition:
    """What each space explains.

    Attributes
    ----------
    spaces
        Names.
    values
        (part, space) -> (n_voxels,), NaN where responses are constant or not finite: ("ev", "all"), ("shared", "all"),
        and ("unique", s), ("share", s), ("alone", s) for every space.
    low, high
        Bootstrap intervals over images of the same.
    winner
        Number of the space with the largest share, counted from 1; 0 where all explain nothing together (n_voxels,).
    regions
        One row for each region, part and space: `roi`, `n_voxels`, `part`, `space`, `mean` over voxels, `low`, `high`.
    """

    spaces: tuple[str, ...]
    values: dict[tuple[str, str], Array]
    low: dict[tuple[str, str], Array]
    high: dict[tuple[str, str], Array]
    winner: Array
    regions: pd.DataFrame


def partition_variance(
    encoder: BandedRidgeEncoder,
    X: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    y: npt.ArrayLike,
    *,
    rois: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    n_bootstrap: int = 1000,
    level: float = 0.95,
    random_state: int = 0,
    progress: Progress | None = None,
) -> VariancePartition:
    """Divide the explained variance of new responses among the feature spaces of an encoder.

    Parameters
    ----------
    encoder
        Fitted on several spaces, with `partition`.
    X
        Features of new images, as to its `predict`.
    y
        Measured responses to them (n_images, n_voxels).
    rois
        Region name -> bool (n_voxels,).
    n_bootstrap
        Samples of the images for intervals.
    level
        Confidence of these.
    random_state
        Seed; the same seed gives the same numbers, whatever the voxels.
    progress
        Called with (voxels done, voxels).

    Returns
    -------
    VariancePartition

    Raises
    ------
    InputError
        If the encoder has one space or no parts, or shapes do not match.
    """
    if len(encoder.spaces_) < 2 or not encoder.parts_:
        raise InputError("the encoder has no parts: fit a BandedRidgeEncoder(partition=True) on two spaces or more.")
    features = np.asarray(encoder._check_features(encoder._joined(X), reset=False), dtype=np.float64)
    responses = np.asarray(y)
    n_images, n_voxels = len(features), encoder.coef_.shape[0]
    if responses.shape != (n_images, n_voxels):
        raise InputError(f"y has shape {responses.shape}, expected (n_images, n_voxels) = {(n_images, n_voxels)}.")
    check_level(level)
    regions = name_regions(rois, n_voxels)
    counts = draw_counts(n_images, n_bootstrap, random_state)
    keys = _keys(encoder)
    once = np.ones((1, n_images))
    values, low, high = ({key: np.full(n_voxels, np.nan) for key in keys} for _ in range(3))
    samples = {key: RegionSamples(regions, n_bootstrap) for key in keys}
    for columns, measured in known_voxels(responses, 8 * n_bootstrap * (len(keys) + 4), progress):
        models = _predictions(encoder, features, columns)
        exact = _parts(encoder, measured, models, once)
        drawn = _parts(encoder, measured, models, counts)
        for key in keys:
            values[key][columns] = exact[key][0]
            low[key][columns], high[key][columns] = interval(drawn[key], level)
            samples[key].add(columns, drawn[key])
    spaces = tuple(encoder.spaces_)
    shares = np.stack([values["share", name] for name in spaces])
    explained = np.where(np.isfinite(values["ev", ALL]), values["ev", ALL], 0.0) > 0
    winner = np.where(explained, 1.0 + np.where(np.isfinite(shares), shares, -np.inf).argmax(axis=0), 0.0)
    winner[np.isnan(values["ev", ALL])] = np.nan
    table = _table(regions, values, {key: samples[key].interval(level) for key in keys})
    return VariancePartition(spaces, values, low, high, winner, table)


def _keys(encoder: BandedRidgeEncoder) -> list[tuple[str, str]]:
    each = [(part, name) for part in ("share", "unique", "alone") for name in encoder.spaces_]
    return [("ev", ALL), ("shared", ALL), *each]


def _predictions(encoder: BandedRidgeEncoder, features: Array, voxels: npt.NDArray[np.intp]) -> dict[Any, Array]:
    """Predictions without intercepts of all spaces, of each space's part in that, and of the encoders of subsets."""
    coef = encoder.coef_[voxels].astype(np.float64)
    columns = encoder.columns_
    models: dict[Any, Array] = {name: features[:, chosen] @ coef[:, chosen].T for name, chosen in columns.items()}
    models[ALL,] = np.sum(list(models.values()), axis=0)
    for names, (weights, _) in encoder.parts_.items():
        joined = np.concatenate([features[:, columns[name]] for name in names], axis=1)
        models[names] = joined @ weights[voxels].astype(np.float64).T
    return models


def _parts(
    encoder: BandedRidgeEncoder, y: Array, models: Mapping[Any, Array], counts: Array
) -> dict[tuple[str, str], Array]:
    """All parts in every sample, (part, space) -> (b, v)."""
    names = tuple(encoder.spaces_)
    subsets = list(encoder.parts_)
    whole = models[ALL,]
    ev, *others = resampled_ev(y, [y - whole, *(y - models[subset] for subset in subsets)], counts)
    of = dict(zip(subsets, others, strict=True))
    total = resampled_variance(y, counts)
    total[total <= RESAMPLED_ROUNDING * resampled_variance(y, np.ones((1, len(y))))] = np.nan
    out = {("ev", ALL): ev}
    for name in names:
        out["share", name] = resampled_covariance(2 * y - whole, models[name], counts) / total
        out["unique", name] = ev - of[tuple(other for other in names if other != name)]
        out["alone", name] = of[(name,)]
    out["shared", ALL] = ev - np.sum([out["unique", name] for name in names], axis=0)
    return out


def _table(
    regions: Mapping[str, npt.NDArray[np.bool_]],
    values: Mapping[tuple[str, str], Array],
    bounds: Mapping[tuple[str, str], Array],
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "roi": region,
            "n_voxels": int(chosen.sum()),
            "part": part,
            "space": space,
            "mean": mean_over_voxels(values[part, space][chosen]),
            "low": bounds[part, space][0, number],
            "high": bounds[part, space][1, number],
        }
        for number, (region, chosen) in enumerate(regions.items())
        for part, space in values
    )
