"""A whole person's encoders by attention: arrays in, every voxel's weights out, memory bounded.

    y = ȳ + sd (X - x̄) w

Where people are remembered, every voxel is read by itself (`braincorl.models.attention`); where none are, the mean of
that with what all voxels of the person say together is written (`braincorl.models.own_voxels`). Images in which the
responses of all voxels are off (motion, a missed trial) count for less.

    n images, p features, k context coordinates, v voxels, h heads, d probes
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from braincorl.batching import at_a_time
from braincorl.closed_forms.attention_posterior import AttentionPosterior
from braincorl.closed_forms.bases import Basis, Metric
from braincorl.closed_forms.decomposition import varying_voxels
from braincorl.closed_forms.items import Items, Nearby
from braincorl.closed_forms.spoilt_images import weights_under
from braincorl.foreign_state import own_torch_state
from braincorl.models.attention import AttentionConfig, VoxelAttention, Written
from braincorl.models.hardware import mind_forks
from braincorl.models.own_voxels import OwnVoxels
from braincorl.storage.files import Progress
from braincorl.validation import FloatArray, check_batch_size

# What a response's signal share is taken to be when spoilt images are looked for.
_TYPICAL_SHARE = 0.2
# Directions of feature space along which the spread between items and heads is kept.
_PROBES = 16
# Of the working memory, for one batch of voxels, and the fewest at which products still run at full speed.
_BATCH_SHARE = 1 / 4
_FEWEST_VOXELS = 32


@dataclass(frozen=True)
class AttentionFit:
    """What was written for a person.

    Attributes
    ----------
    coef, intercept
        (v, p) and (v,).
    posterior
        For predictive variances.
    region_probability
        Of every region the memory knows (v, r).
    image_weight
        Relative precision of each image (n,).
    context_rows
        Uᵀ X (k, p): all that the context's features say, for those who remember this person.
    """

    coef: FloatArray
    intercept: FloatArray
    posterior: AttentionPosterior
    region_probability: FloatArray
    image_weight: npt.NDArray[np.float64]
    context_rows: FloatArray


@own_torch_state()
def fit_by_attention(
    config: AttentionConfig,
    X: FloatArray,
    y: FloatArray,
    scale: float,
    items: Items | None = None,
    covariance: npt.NDArray[np.float64] | None = None,
    *,
    robust: bool = True,
    region: npt.NDArray[np.intp] | None = None,
    nearby: Nearby | None = None,
    device: torch.device | str = "cpu",
    voxel_batch_size: int | str = "auto",
    progress: Progress | None = None,
) -> AttentionFit:
    """Write the encoders of all voxels of a person.

    Parameters
    ----------
    config
        What the heads suppose.
    X
        Features (n, p); with items, n may be 0 or 1.
    y
        Responses (n, v), any unit, of the type of `X`.
    scale
        Variance at which isotropic weights give unit signal over the pool.
    items
        What is remembered.
    covariance
        Of the pool's features (p, p); needed with items.
    robust
        Let images count for less in which the responses of all voxels are off.
    region
        Index of every voxel's region (v,), -1 where unknown.
    nearby
        Remembered voxels around every voxel.
    device
        Where products run.
    voxel_batch_size
        Voxels at a time, or "auto"; bounds memory, and changes results only by rounding.
    progress
        Called with (voxels done, v).

    Returns
    -------
    AttentionFit
    """
    mind_forks()
    dtype, n_voxels = y.dtype, y.shape[1]
    metric = Metric(None if items is None else items.moment, config.attended_metric, scale)
    weight = _image_weight(X, y, metric) if robust else np.ones(len(X))
    mean = np.asarray(np.average(X, axis=0, weights=weight) if len(X) else np.zeros(X.shape[1]))
    centred = np.sqrt(weight)[:, None] * (X - mean)
    probes, beyond = _probes(centred, covariance, items)
    like = torch.zeros(0, dtype=torch.float64 if dtype == np.float64 else torch.float32, device=device)
    n_places = 1 if nearby is None else len(nearby.log_weight)
    regions = np.full(n_voxels, -1, dtype=np.intp) if region is None else region
    standard = _Standardised(y, weight)
    with torch.inference_mode():
        whole = VoxelAttention(config, centred, scale, items, probes, n_places, like)
        written = _Arrays.empty(n_voxels, X.shape[1], whole, dtype)
        done, views, view = 0, [(whole.bases, items)], np.zeros(n_voxels, dtype=np.int64)
        for number in np.unique(regions):
            layer = whole
            if items is not None and number >= 0:
                own = items.in_region(int(number), config.elsewhere)
                layer = VoxelAttention(config, centred, scale, own, probes, n_places, like)
                view[regions == number] = len(views)
                views.append((layer.bases, own))
            members = np.flatnonzero(regions == number)
            size = _batch_size(voxel_batch_size, layer, nearby)
            company = _company(config, layer, standard, size) if items is None else None
            for voxels in np.split(members, range(size, members.size, size)):
                responses = torch.from_numpy(standard.of(voxels)).to(like)
                part = layer.write(responses, None if nearby is None else nearby.of(voxels))
                weights = part.coef
                if company is not None:
                    weights = company.write(responses, weights)
                written.store(voxels, weights, part, standard.deviation)
                done += len(voxels)
                if progress is not None:
                    progress(done, n_voxels)
    posterior = _posterior(whole, views, view, mean, written, probes, beyond, standard)
    return AttentionFit(
        coef=written.coef,
        intercept=(standard.mean - written.coef @ mean).astype(dtype),
        posterior=posterior,
        region_probability=written.region,
        image_weight=weight,
        context_rows=whole.bases[0].rows.astype(dtype),
    )


class _Standardised:
    """Responses in units of each voxel's standard deviation, from its mean; a batch at a time."""

    def __init__(self, y: FloatArray, weight: npt.NDArray[np.float64]) -> None:
        self._y, self._root = y, np.sqrt(weight)
        self.mean, self.deviation = np.zeros(y.shape[1]), np.ones(y.shape[1], y.dtype)
        if len(y) == 0:
            return
        # Around the first image, so that a large baseline costs no digits.
        first = y[0].astype(np.float64)
        moved, square = np.zeros(y.shape[1]), np.zeros(y.shape[1])
        for row, share in zip(y, weight / weight.sum(), strict=True):
            moved += share * (row - first)
            square += share * (row - first) ** 2
        self.mean = first + moved
        if len(y) > 1:
            deviation = np.sqrt(np.maximum(square - moved**2, 0.0))
            varying = varying_voxels(self.mean, deviation, y.dtype)
            self.deviation = np.where(varying, deviation, 0.0).astype(y.dtype)

    @property
    def varying(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self.deviation > 0)

    def of(self, voxels: npt.NDArray[np.intp]) -> FloatArray:
        """Give those of some voxels (n, m), images times the roots of their precisions; 0 for constant voxels."""
        deviation = self.deviation[voxels]
        factor = np.divide(1.0, deviation, out=np.zeros(len(voxels)), where=deviation > 0)
        standard: FloatArray = self._root[:, None] * (self._y[:, voxels] - self.mean[voxels]) * factor
        return standard.astype(self._y.dtype, copy=False)


@dataclass(frozen=True)
class _Arrays:
    """What the layers write, filled batch by batch."""

    coef: FloatArray
    probability: FloatArray
    between: FloatArray
    region: FloatArray

    @classmethod
    def empty(cls, n_voxels: int, n_features: int, layer: VoxelAttention, dtype: npt.DTypeLike) -> "_Arrays":
        n_regions = 0 if layer.items is None else layer.items.n_regions
        sizes = (n_features, len(layer.heads.signal), layer.n_probes, n_regions)
        return cls(*(np.zeros((n_voxels, size), dtype) for size in sizes))

    def store(self, voxels: npt.NDArray[np.intp], weights: torch.Tensor, part: Written, deviation: FloatArray) -> None:
        """Store a batch, weights in units of the responses."""
        self.coef[voxels] = weights.cpu().numpy() * deviation[voxels, None]
        self.probability[voxels] = part.probability.cpu().numpy()
        self.between[voxels] = part.between.cpu().numpy()
        self.region[voxels] = part.region.cpu().numpy()


def _image_weight(X: FloatArray, y: FloatArray, metric: Metric) -> npt.NDArray[np.float64]:
    # Beyond so many images one spoilt image changes little, and finding it costs a cube of their number.
    if not 5 <= len(X) <= 1000:
        return np.ones(len(X))
    centred = X - X.mean(axis=0, dtype=np.float64)
    signal = centred @ (metric @ centred.T)
    return weights_under(_TYPICAL_SHARE / (1 - _TYPICAL_SHARE) * signal, y)


def _company(config: AttentionConfig, layer: VoxelAttention, standard: _Standardised, size: int) -> OwnVoxels | None:
    """Give what all varying voxels say together, if that is asked for and there are any."""
    voxels = standard.varying
    if config.layers == ("alone",) or not voxels.size:
        return None

    def blocks() -> Iterator[torch.Tensor]:
        for part in np.split(voxels, range(size, voxels.size, size)):
            yield torch.from_numpy(standard.of(part)).to(layer.like)

    return OwnVoxels(config, layer, blocks)


def _probes(
    centred: npt.NDArray[np.float64], covariance: npt.NDArray[np.float64] | None, items: Items | None
) -> tuple[npt.NDArray[np.float64], float]:
    """Directions in which features vary most (d, p), and how much more variance of signal there is than along them."""
    if covariance is None or items is None:
        _, _, rows = np.linalg.svd(centred, full_matrices=False)
        return rows[:_PROBES], 1.0
    values, vectors = np.linalg.eigh(covariance)
    signal = np.maximum(values, 0.0) * np.einsum("pd,pq,qd->d", vectors, items.moment, vectors)
    leading = np.argsort(-values)[:_PROBES]
    return vectors[:, leading].T, float(signal.sum() / signal[leading].sum())


def _batch_size(value: int | str, layer: VoxelAttention, nearby: Nearby | None) -> int:
    chosen = check_batch_size(value)
    if chosen is not None:
        return chosen
    each = layer.bytes_per_voxel(None if nearby is None else nearby.index.shape[1])
    return max(_FEWEST_VOXELS, at_a_time(each, _BATCH_SHARE))


def _posterior(
    layer: VoxelAttention,
    views: Sequence[tuple[Sequence[Basis], Items | None]],
    view: npt.NDArray[np.int64],
    mean: FloatArray,
    written: _Arrays,
    probes: npt.NDArray[np.float64],
    beyond: float,
    standard: _Standardised,
) -> AttentionPosterior:
    """Put together what is known after the context; a view is the memory as the voxels of one region see it."""
    dtype, n_images, p = written.coef.dtype, layer.n_images, len(mean)
    # Regions that no voxel is of need no room.
    used, view = np.unique(view, return_inverse=True)
    seen = [views[number] for number in used]
    rank = max(len(basis.values) for bases, _ in seen for basis in bases)
    values = np.zeros((len(seen), len(layer.bases), rank))
    to_weights = np.zeros((len(seen), len(layer.bases), p, rank), dtype)
    for number, (bases, _) in enumerate(seen):
        for which, basis in enumerate(bases):
            values[number, which, : len(basis.values)] = basis.values
            to_weights[number, which, :, : len(basis.values)] = basis.to_weights
    moments = [items.moment.astype(dtype) for _, items in seen if items is not None]
    unbiased = np.sqrt(n_images / (n_images - 1)) if n_images > 1 else 1.0
    return AttentionPosterior(
        mean=mean,
        values=values,
        to_weights=to_weights,
        isotropic=np.array(layer.isotropic),
        scale=np.asarray(layer.scale),
        moment=np.array(moments) if moments else np.zeros((0, 0, 0), dtype),
        region=view.astype(np.int64),
        head_basis=layer.heads.basis.astype(np.int64),
        head_residual=layer.heads.residual,
        head_signal=layer.heads.signal,
        probability=written.probability,
        probes=probes.astype(dtype),
        between=written.between,
        beyond=np.asarray(beyond),
        deviation=(standard.deviation * unbiased).astype(dtype),
        n_images=np.asarray(n_images),
    )
