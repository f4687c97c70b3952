"""Anatomy without labels: what kind of voxel its neighbours are informs what kind a voxel is.

The weight of component c at voxel v, before its own responses are looked at, becomes

    π'_cv = (1 - λ) π_cv + λ Σ_u w_vu q_cu,

with q_cu the responsibilities of the other voxels u and w a Gaussian of the distance between them, of rows that sum
to 1. Responsibilities and weights are found in turns, a few times. Voxels whose region is known keep the weights of
their region, which say more; they inform the others.

Neighbours share noise, and would find each other alike for that alone. So λ and the width of w are chosen on other
images: the weights are smoothed with one half of the context, and what they are worth is the evidence of the other
half, whose noise is independent; and the reverse. λ = 0, no smoothing, is among the choices.

Letters: n images, v voxels, c components, g levels of r.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.spatial import cKDTree

from braincorl.errors import InputError
from braincorl.priors.components import Components
from braincorl.priors.context import Context, reduce_context
from braincorl.priors.person import with_shared_scale
from braincorl.priors.posterior import level_evidence, make_frames
from braincorl.validation import FloatArray

# Shares λ and widths (standard deviations, in units of the grid) among which is chosen.
SHARES, WIDTHS = (0.25, 0.5, 0.75, 0.9), (1.0, 2.0)
# Width if the share is given.
WIDTH = 1.0
# Neighbours beyond this many widths do not count.
_REACH = 2.5
_ROUNDS = 5
# Fewer images than this in a half tell nothing about a setting.
_FEWEST_IMAGES = 3
_BATCH = 2048


def check_smoothness(value: float | str) -> None:
    """Refuse an impossible share λ.

    Raises
    ------
    InputError
        If it is neither "auto" nor from 0 to below 1.
    """
    if value != "auto" and (isinstance(value, str) or not 0 <= value < 1):
        raise InputError(f"smoothness must be 'auto' or a number from 0 to below 1, but is {value!r}.")


def check_positions(positions: npt.ArrayLike, n_voxels: int) -> npt.NDArray[np.float64]:
    """Check the places of voxels.

    Raises
    ------
    InputError
        If there is not one finite place (x, y, z) per voxel.
    """
    array = np.asarray(positions, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != n_voxels or not np.isfinite(array).all():
        raise InputError(
            f"positions has shape {array.shape}, but must hold finite grid coordinates (x, y, z) of each of the "
            f"{n_voxels} voxels: np.argwhere(mask) gives them."
        )
    return array


def neighbour_weights(positions: FloatArray, width: float) -> scipy.sparse.csr_array:
    """Weights of each voxel's neighbours.

    Parameters
    ----------
    positions
        Places of the voxels (v, 3), in steps of the grid.
    width
        Standard deviation of the Gaussian, in the same unit.

    Returns
    -------
    sparse array of shape (v, v)
        Rows sum to 1, or to 0 for a voxel without neighbours; a voxel is not its own neighbour.
    """
    tree = cKDTree(positions)
    pairs = tree.query_pairs(_REACH * width, output_type="ndarray")
    one, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    squared = ((positions[one] - positions[other]) ** 2).sum(axis=1)
    n_voxels = len(positions)
    weights = scipy.sparse.csr_array((np.exp(-squared / (2 * width**2)), (one, other)), shape=(n_voxels, n_voxels))
    total = np.asarray(weights.sum(axis=1)).ravel()
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1.0 / np.where(total > 0, total, 1.0)) @ weights)


def component_evidence(context: Context, components: Components) -> npt.NDArray[np.float64]:
    """Log evidence of every component for every voxel, averaged over the levels of r.

    Parameters
    ----------
    context
        Of the person.
    components
        The mixture.

    Returns
    -------
    ndarray of shape (c, v)
        Up to a constant of the voxel; 0 for constant voxels.
    """
    found = np.zeros((components.n_components, context.n_voxels))
    if context.rows.shape[0] == 0:
        return found
    with np.errstate(divide="ignore"):
        log_level = np.log(components.level_probability)
    frames = make_frames(context, components)
    for start in range(0, context.n_voxels, _BATCH):
        batch = slice(start, start + _BATCH)
        part = context.voxels(batch)
        for c, frame in enumerate(frames):
            evidence = level_evidence(frame, part, frame.vectors.T @ part.projected).log_evidence
            found[c, batch] = np.logaddexp.reduce(evidence + log_level[c][:, None], axis=0)
    return np.where(context.scale > 0, found, 0.0)


def smooth_log_weight(
    evidence: FloatArray,
    log_weight: FloatArray,
    neighbours: scipy.sparse.csr_array,
    share: float,
    fixed: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Log weight of every component at every voxel, informed by its neighbours.

    Parameters
    ----------
    evidence
        Log evidence (c, v).
    log_weight
        log π (c, v) or (c, 1).
    neighbours
        Of `neighbour_weights`.
    share
        λ.
    fixed
        Voxels that keep their weights (v,).

    Returns
    -------
    ndarray of shape (c, v)
    """
    prior = np.broadcast_to(np.exp(log_weight), evidence.shape)
    alone = fixed | (np.asarray(neighbours.sum(axis=1)).ravel() == 0)
    weight: npt.NDArray[np.float64] = prior
    for _ in range(_ROUNDS):
        joint = evidence + np.log(weight)
        responsibility = np.exp(joint - np.logaddexp.reduce(joint, axis=0))
        around = np.asarray(neighbours @ responsibility.T).T
        weight = np.where(alone, prior, (1.0 - share) * prior + share * around)
    smooth: npt.NDArray[np.float64] = np.log(weight)
    return smooth


def choose_smoothness(
    halves: Sequence[Context],
    components: Components,
    log_weight: FloatArray,
    positions: FloatArray,
    fixed: npt.NDArray[np.bool_],
) -> tuple[float, float]:
    """Choose how much neighbours count, and how far they reach.

    Parameters
    ----------
    halves
        The context in two halves of its images; or none, if it has too few.
    components
        The mixture.
    log_weight
        log π (c, v) or (c, 1).
    positions
        Places of the voxels (v, 3).
    fixed
        Voxels that keep their weights (v,).

    Returns
    -------
    share, width : float
        λ, 0 if smoothing does not raise the evidence of images that it did not see; and the width.
    """
    best, chosen = 0.0, (0.0, WIDTH)
    if not halves or fixed.all():
        return chosen
    evidence = [component_evidence(half, components) for half in halves]
    apart = sum(np.logaddexp.reduce(one + log_weight, axis=0).mean() for one in evidence)
    for width in WIDTHS:
        neighbours = neighbour_weights(positions, width)
        for share in SHARES:
            value = -apart
            for seen, new in (evidence, evidence[::-1]):
                weight = smooth_log_weight(seen, log_weight, neighbours, share, fixed)
                value += np.logaddexp.reduce(weight + new, axis=0).mean()
            if value > best:
                best, chosen = float(value), (share, width)
    return chosen


def context_halves(X: FloatArray, y: FloatArray, weights: npt.NDArray[np.float64]) -> list[Context]:
    """Two halves of a context's images, every second one each; none if they would be too small.

    Parameters
    ----------
    X
        Features (n, p).
    y
        Responses (n, v).
    weights
        Relative precision of each image (n,).

    Returns
    -------
    list of Context
    """
    if X.shape[0] < 2 * _FEWEST_IMAGES:
        return []
    return [
        with_shared_scale(reduce_context(X[start::2], y[start::2], weights[start::2] / weights[start::2].mean()))
        for start in (0, 1)
    ]
