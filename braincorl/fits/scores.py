"""Scores of an encoder on images that it has not seen, per voxel and per region."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl import metrics
from braincorl.batching import batches
from braincorl.datasets.space import VoxelSpace
from braincorl.datasets.subject import SubjectData
from braincorl.encoders.banded_ridge import BandedRidgeEncoder
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.questions.intervals import bootstrap_interval
from braincorl.questions.partition import VariancePartition, partition_variance
from braincorl.questions.permutation import PermutationTest, permutation_test
from braincorl.storage.files import Progress
from braincorl.validation import check_finite

Scores = dict[str, npt.NDArray[np.float64]]


# Scores per voxel, in the order of tables; those after `r` where noise is known.
SCORES = ("ev", "r2", "r", "noiseceiling", "evnormalized", "rnormalized")


def score_encoder(
    encoder: LinearEncoder,
    space: VoxelSpace,
    features: npt.NDArray[np.floating[Any]],
    subject: SubjectData,
    min_ceiling: float = 0.1,
) -> Scores:
    """Score an encoder against one person's responses.

    Parameters
    ----------
    encoder
        Fitted.
    space
        The encoder's voxels.
    features
        Of the subject's images, in the same order (n_images, n_features).
    subject
        Responses to images that the encoder was not fitted on.
    min_ceiling
        Noise-normalised scores are given where the ceiling is at least this.

    Returns
    -------
    dict
        Name -> (n_voxels,) over the encoder's voxels, NaN where the subject has no data: `ev`, `r2`, `r`; and where
        noise is known `noiseceiling` (of R²), `evnormalized` (EV / NC), `rnormalized` (r / √NC).

    Raises
    ------
    InputError
        If the spaces have different masks or the shapes do not match.
    """
    ours, theirs = common_voxels(space, subject.space)
    if features.shape[0] != subject.n_images:
        raise InputError(f"features has {features.shape[0]} rows for {subject.n_images} images: pass one per image.")
    scores = {name: np.full(space.n_voxels, np.nan) for name in ("ev", "r2", "r")}
    for part in batches(ours.size, 5 * 8 * len(features)):
        mine, other = ours[part], theirs[part]
        predicted = predict_exactly(encoder, features, mine)
        measured = subject.responses[:, other]
        scores["ev"][mine] = metrics.explained_variance(measured, predicted)
        scores["r2"][mine] = metrics.r2_score(measured, predicted)
        scores["r"][mine] = metrics.pearson_r(measured, predicted)
    ceiling = subject.noise_ceiling()
    if ceiling is not None:
        scores["noiseceiling"] = np.full(space.n_voxels, np.nan)
        scores["noiseceiling"][ours] = ceiling[theirs]
        root = np.sqrt(scores["noiseceiling"])
        scores["evnormalized"] = metrics.normalize_by_ceiling(scores["ev"], scores["noiseceiling"], min_ceiling)[0]
        scores["rnormalized"] = metrics.normalize_by_ceiling(scores["r"], root, min_ceiling**0.5)[0]
    return scores


def encoder_significance(
    encoder: LinearEncoder,
    space: VoxelSpace,
    features: npt.NDArray[np.floating[Any]],
    subject: SubjectData,
    n_permutations: int = 1000,
    rois: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    random_state: int = 0,
    progress: Progress | None = None,
) -> PermutationTest:
    """Test each voxel of an encoder against permuted images (`braincorl.questions.permutation`).

    Images are exchanged among those of as many trials.

    Parameters
    ----------
    encoder, space, features, subject
        As in `score_encoder`.
    n_permutations
        Orders of the images to draw.
    rois
        Region name -> bool (n_voxels,) over the encoder's voxels.
    random_state
        Seed.
    progress
        Called with (voxels done, voxels).

    Returns
    -------
    PermutationTest
        Over the encoder's voxels, NaN where the subject has no data.

    Raises
    ------
    InputError
        As `score_encoder`, and if there is no permutation.
    """
    ours, theirs = common_voxels(space, subject.space)
    if features.shape[0] != subject.n_images:
        raise InputError(f"features has {features.shape[0]} rows for {subject.n_images} images: pass one per image.")
    measured = np.full((subject.n_images, space.n_voxels), np.nan, dtype=subject.responses.dtype)
    predicted = np.zeros((subject.n_images, space.n_voxels))
    measured[:, ours] = subject.responses[:, theirs]
    for part in batches(ours.size, 5 * 8 * len(features)):
        mine = ours[part]
        predicted[:, mine] = predict_exactly(encoder, features, mine)
    return permutation_test(
        measured,
        predicted,
        n_permutations,
        strata=subject.n_repeats,
        rois=rois,
        random_state=random_state,
        progress=progress,
    )


def encoder_partition(
    encoder: LinearEncoder,
    space: VoxelSpace,
    features: npt.NDArray[np.floating[Any]],
    subject: SubjectData,
    rois: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    progress: Progress | None = None,
) -> VariancePartition | None:
    """Divide the explained variance among feature spaces (`braincorl.questions.partition`), if there are several.

    Parameters and errors are those of `encoder_significance`.

    Returns
    -------
    VariancePartition or None
        Over the encoder's voxels, NaN where the subject has no data; None for an encoder of one space.
    """
    if not isinstance(encoder, BandedRidgeEncoder) or len(encoder.spaces_) < 2 or not encoder.parts_:
        return None
    ours, theirs = common_voxels(space, subject.space)
    measured = np.full((subject.n_images, space.n_voxels), np.nan, dtype=subject.responses.dtype)
    measured[:, ours] = subject.responses[:, theirs]
    return partition_variance(encoder, features, measured, rois=rois, progress=progress)


def predict_exactly(
    encoder: LinearEncoder,
    features: npt.NDArray[np.floating[Any]],
    voxels: npt.NDArray[np.intp] | slice = slice(None),
) -> npt.NDArray[np.float64]:
    """Predict in float64, for scoring: where predictions hardly vary around a large mean, float32 rounds r away.

    Parameters
    ----------
    encoder
        Fitted.
    features
        (n_images, n_features).
    voxels
        Which of the encoder's, by default all.

    Returns
    -------
    ndarray of shape (n_images, n_voxels)
        In the units of the responses.

    Raises
    ------
    InputError
        If the number of features differs from the encoder's, or a feature is not finite.
    """
    if features.ndim != 2 or features.shape[1] != encoder.coef_.shape[1]:
        raise InputError(
            f"features has shape {features.shape}, but the encoder has {encoder.coef_.shape[1]} features: pass "
            "(n_images, n_features) of the same backbone."
        )
    check_finite(features, "features")
    weights = encoder.coef_[voxels].astype(np.float64, copy=False)
    predicted: npt.NDArray[np.float64] = features.astype(np.float64, copy=False) @ weights.T
    predicted += encoder.intercept_[voxels]
    return predicted


def common_voxels(space: VoxelSpace, other: VoxelSpace) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Find the voxels that carry data in both spaces, as indices into each.

    Raises
    ------
    InputError
        If the masks differ.
    """
    same = space.included.size == other.included.size
    if same and space.mask is not None and other.mask is not None:
        same = np.array_equal(space.mask, other.mask)
    if same and space.surface is not None and other.surface is not None:
        same = space.surface.same_places(other.surface)
    if not same:
        raise InputError(
            f"the encoder has {space.included.size} mask voxels and the responses {other.included.size}, or they lie "
            "elsewhere: read the responses with the mask of the fit."
        )
    both = space.included & other.included
    return (np.cumsum(space.included) - 1)[both], (np.cumsum(other.included) - 1)[both]


def summarize_rois(
    values: Mapping[str, npt.NDArray[np.floating[Any]]],
    rois: Mapping[str, npt.NDArray[np.bool_]],
    n_bootstrap: int = 0,
    level: float = 0.95,
    random_state: int = 0,
) -> pd.DataFrame:
    """Means of voxel values over each region.

    Parameters
    ----------
    values
        Name -> (n_voxels,), or (n_draws, n_voxels) for several draws of the context; NaN are left out of that value's
        mean.
    rois
        Name -> bool (n_voxels,).
    n_bootstrap
        Bootstrap samples for confidence intervals of the means over voxels and draws
        (`braincorl.questions.intervals`); 0 for none.
    level
        Confidence of these.
    random_state
        Seed of these.

    Returns
    -------
    pandas.DataFrame
        One row for all voxels and one per region: `roi`, `n_voxels`, and per value `NAME_mean`, `NAME_median`,
        `NAME_n` (values that it rests on), and with `n_bootstrap` `NAME_low` and `NAME_high`.

    Raises
    ------
    InputError
        If shapes do not match.
    """
    sizes = {array.shape[-1:] for array in values.values()} | {array.shape for array in rois.values()}
    if len(sizes) > 1 or any(array.ndim > 2 for array in values.values()):
        shapes = sorted({str(array.shape) for array in (*values.values(), *rois.values())})
        raise InputError(f"values and rois must all be (n_voxels,), but have shapes {shapes}.")
    n_voxels = next(iter(sizes))[0] if sizes else 0
    rows = []
    for name, members in [("all", np.ones(n_voxels, dtype=bool)), *rois.items()]:
        row: dict[str, Any] = {"roi": name, "n_voxels": int(members.sum())}
        for value, array in values.items():
            chosen = array[..., members]
            inside = chosen[np.isfinite(chosen)]
            row[f"{value}_mean"] = float(inside.mean()) if inside.size else float("nan")
            row[f"{value}_median"] = float(np.median(inside)) if inside.size else float("nan")
            row[f"{value}_n"] = inside.size
            if n_bootstrap:
                interval = bootstrap_interval(chosen, n_bootstrap, level, random_state)
                row[f"{value}_low"], row[f"{value}_high"] = interval
        rows.append(row)
    return pd.DataFrame(rows)
