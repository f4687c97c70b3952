"""What a query selects: voxels and regions of a text, images and texts of a region, and how well texts find regions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl.analysis.words.pool import Array, Pool, make_pool
from braincorl.analysis.words.selectivity import TextSelectivity, selectivity_over_voxels
from braincorl.analysis.words.text_directions import average_prompts, text_directions
from braincorl.datasets.space import VoxelSpace
from braincorl.datasets.trials.rois import rois_to_labels
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.validation import FloatArray

Rois = Mapping[str, npt.NDArray[np.bool_]]
Order = Literal["selectivity", "specificity"]


def selection_by_roi(result: TextSelectivity, rois: Rois, q: float = 0.05) -> pd.DataFrame:
    """Count, per text, the voxels that each region holds of those that the text selects.

    Parameters
    ----------
    result
        Of `text_selectivity`.
    rois
        Region name -> bool (n_voxels,).
    q
        Share of wrongly selected voxels to accept.

    Returns
    -------
    pandas.DataFrame
        One row per text for all voxels and one per region: `text`, `roi`, `n_voxels`, `n_selected`, `share` (of the
        region's voxels that are selected), `selectivity_mean`.

    Raises
    ------
    InputError
        If a region has another number of voxels.
    """
    n_voxels = len(result.selectivity)
    _check_rois(rois, n_voxels)
    selected = result.selected(q)
    rows = []
    for column, text in enumerate(result.texts):
        for name, members in [("all", np.ones(n_voxels, dtype=bool)), *rois.items()]:
            chosen = selected[members, column]
            mean = float(result.selectivity[members, column].mean()) if members.any() else float("nan")
            share = float(chosen.mean()) if members.any() else float("nan")
            rows.append((text, name, int(members.sum()), int(chosen.sum()), share, mean))
    columns = ["text", "roi", "n_voxels", "n_selected", "share", "selectivity_mean"]
    return pd.DataFrame(rows, columns=columns)


def top_voxels(result: TextSelectivity, rois: Rois, space: VoxelSpace | None = None, n: int = 20) -> pd.DataFrame:
    """List the voxels of which it is most certain that they respond to each text.

    Parameters
    ----------
    result
        Of `text_selectivity`.
    rois
        Region name -> bool (n_voxels,).
    space
        Where the voxels are; with a grid, their millimetres are listed.
    n
        Voxels per text.

    Returns
    -------
    pandas.DataFrame
        `text`, `rank` (by `z`, the evidence; equal ones by selectivity), `voxel` (index among the voxels with data),
        `x_mm`, `y_mm`, `z_mm` with a grid, `roi` (the smallest that holds it), `selectivity`, `z`, `q`.
    """
    labels = rois_to_labels(rois, len(result.selectivity))
    position = None if space is None or space.mask is None else space.coordinates()
    rows = []
    for column, text in enumerate(result.texts):
        order = np.lexsort((-result.selectivity[:, column], -result.z[:, column]))[:n]
        for rank, voxel in enumerate(order, start=1):
            place = (
                {} if position is None else dict(zip(("x_mm", "y_mm", "z_mm"), position[voxel].round(2), strict=True))
            )
            figures = {
                "selectivity": result.selectivity[voxel, column],
                "z": result.z[voxel, column],
                "q": result.q_value[voxel, column],
            }
            rows.append(
                {"text": text, "rank": rank, "voxel": int(voxel), **place, "roi": str(labels[voxel]), **figures}
            )
    return pd.DataFrame(rows)


def preferred_images(
    encoder: LinearEncoder,
    image_features: npt.ArrayLike,
    image_ids: Sequence[str] | npt.NDArray[np.str_],
    voxels: Rois,
    n: int = 10,
) -> pd.DataFrame:
    """List the images to which groups of voxels are predicted to respond most.

    Parameters
    ----------
    encoder
        Fitted.
    image_features
        Features of the images to choose from (n_images, n_features).
    image_ids
        Their names (n_images,).
    voxels
        Name -> bool (n_voxels,): regions, the voxels that a text selects, or one voxel. Empty groups are left out.
    n
        Images per group.

    Returns
    -------
    pandas.DataFrame
        `roi`, `rank`, `image`, `response`: mean over the group's voxels of the predicted response, each voxel in
        standard deviations over the images from its mean.

    Raises
    ------
    InputError
        If shapes do not match.
    """
    weights = np.asarray(encoder.coef_)
    _check_rois(voxels, len(weights))
    X = np.asarray(image_features)
    pool = make_pool(X, weights.shape[1])
    if len(image_ids) != X.shape[0]:
        raise InputError(f"image_ids has {len(image_ids)} names for {X.shape[0]} rows of image_features: one per row.")
    rows = []
    for group, unit in _mean_encoders(weights, pool, voxels):
        response = X @ unit - pool.mean @ unit
        best = np.argsort(-response, kind="stable")[:n]
        rows += [(group, k, str(image_ids[i]), float(response[i])) for k, i in enumerate(best, start=1)]
    return pd.DataFrame(rows, columns=["roi", "rank", "image", "response"])


def preferred_texts(
    encoder: LinearEncoder,
    text_features: npt.ArrayLike,
    texts: Sequence[str] | npt.NDArray[np.str_],
    voxels: Rois,
    image_features: npt.ArrayLike | None = None,
    n: int = 10,
    order: Order = "selectivity",
) -> pd.DataFrame:
    """List the texts, among many, that groups of voxels are most selective for.

    Parameters
    ----------
    encoder
        Fitted.
    text_features
        Embeddings of many texts of all kinds (n_texts, n_features), which are each other's background.
    texts
        Their names (n_texts,).
    voxels
        Name -> bool (n_voxels,): regions, or one voxel. Groups without weights are left out.
    image_features
        Features of a pool of images (n_images, n_features).
    n
        Texts per group.
    order
        "selectivity": what drives the group most. "specificity": what drives it more than other voxels, which finds the
        words of single voxels better (`benchmarks/words.py clip`).

    Returns
    -------
    pandas.DataFrame
        `roi`, `rank`, `text`; `selectivity`, mean over the group's voxels of `text_selectivity`; and `specificity`, how
        far that is from the mean over all voxels of the encoder, in standard deviations over these.

    Raises
    ------
    InputError
        If shapes do not match, or `order` is none of the two.
    """
    if order not in get_args(Order):
        raise InputError(f"order must be one of {', '.join(get_args(Order))}, but is {order!r}.")
    weights = np.asarray(encoder.coef_)
    _check_rois(voxels, len(weights))
    pool = make_pool(image_features, weights.shape[1])
    embeddings = average_prompts(text_features, weights.shape[1])
    if len(texts) != len(embeddings):
        raise InputError(f"texts has {len(texts)} names for {len(embeddings)} rows of text_features: one per row.")
    directions = text_directions(embeddings, None, None, pool).texts
    mean, spread = selectivity_over_voxels(weights, directions, pool)
    rows = []
    for group, unit in _mean_encoders(weights, pool, voxels):
        selectivity = directions @ unit
        specificity = np.divide(selectivity - mean, spread, out=np.zeros_like(spread), where=spread > 0)
        best = np.argsort(-(selectivity if order == "selectivity" else specificity), kind="stable")[:n]
        rows += [(group, k, str(texts[i]), selectivity[i], specificity[i]) for k, i in enumerate(best, start=1)]
    return pd.DataFrame(rows, columns=["roi", "rank", "text", "selectivity", "specificity"])


def localizer_accuracy(
    result: TextSelectivity, localizers: Mapping[str, Sequence[str]], rois: Rois, q: float = 0.05
) -> pd.DataFrame:
    """Score how well texts find the regions that a functional localiser found.

    Parameters
    ----------
    result
        Of `text_selectivity`.
    localizers
        Text -> names of the regions whose voxels it should find, such as {"place": ["PPA", "OPA", "RSC"]}.
    rois
        Region name -> bool (n_voxels,).
    q
        Share of wrongly selected voxels to accept.

    Returns
    -------
    pandas.DataFrame
        One row per text: `text`, `n_roi` (voxels of its regions), `n_selected`; `precision`, the share of the selected
        voxels *that are in any text's regions* which are in the text's own (voxels outside all localiser regions prove
        nothing, as they may respond to the text too); `recall`, the share of its regions' voxels that are selected;
        `accuracy`, the share of its regions' voxels whose most selective text it is; and `auc`, the probability that a
        voxel of its regions is more selective than one of the other texts' regions. NaN where nothing is to be counted.

    Raises
    ------
    InputError
        If a text or region is unknown.

    Notes
    -----
    `precision` and `accuracy` are the two readings of the accuracy in Yu et al., arXiv 2505.15813, who ask which
    localiser voxels the prompts of a category pick.
    """
    from sklearn.metrics import roc_auc_score

    _check_rois(rois, len(result.selectivity))
    own = {text: _union(text, names, result, rois) for text, names in localizers.items()}
    if not own:
        raise InputError("localizers is empty: pass a text and the names of its regions.")
    columns = [result.texts.index(text) for text in own]
    any_roi = np.any(list(own.values()), axis=0)
    best = np.asarray(columns)[result.selectivity[:, columns].argmax(axis=1)]
    rows = []
    for (text, members), column in zip(own.items(), columns, strict=True):
        selected = result.selected(q)[:, column] & any_roi
        both = members.any() and (any_roi & ~members).any()
        rows.append(
            {
                "text": text,
                "n_roi": int(members.sum()),
                "n_selected": int(selected.sum()),
                "precision": _mean(members[selected]),
                "recall": _mean(selected[members]),
                "accuracy": _mean(best[members] == column),
                "auc": roc_auc_score(members[any_roi], result.selectivity[any_roi, column]) if both else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def _mean_encoders(weights: FloatArray, pool: Pool, voxels: Rois) -> Iterator[tuple[str, Array]]:
    """Mean encoder of each group's voxels, scaled to unit variance over the pool; flat voxels count as 0."""
    for name, members in voxels.items():
        spread = pool.spread(weights[members])
        if (spread > 0).any():
            scaled = weights[members][spread > 0] / spread[spread > 0, None]
            yield name, np.asarray(scaled.sum(axis=0) / members.sum(), dtype=np.float64)


def _union(text: str, names: Sequence[str], result: TextSelectivity, rois: Rois) -> npt.NDArray[np.bool_]:
    if text not in result.texts:
        raise InputError(f"localizers names the text '{text}', which was not asked: ask {', '.join(result.texts)}.")
    missing = [name for name in names if name not in rois]
    if missing:
        raise InputError(f"there is no region '{missing[0]}': the regions are {', '.join(rois) or 'none'}.")
    return np.asarray(np.any([rois[name] for name in names], axis=0))


def _check_rois(rois: Rois, n_voxels: int) -> None:
    for name, members in rois.items():
        if members.shape != (n_voxels,):
            raise InputError(f"rois['{name}'] has shape {members.shape}, expected (n_voxels,) = ({n_voxels},).")


def _mean(values: npt.NDArray[np.bool_]) -> float:
    return float(values.mean()) if values.size else float("nan")
