"""What attention leaves open: the predictive variance of the mixture of all heads, and the arrays that hold it.

The predictive variance of a response to x, in units of the voxel's variance:

    Σ_h p_h ( (1 - r_h) (1 + 1/n) + residual_h(x) )  +  spread between items and heads along x

residual_h(x) = r (1 - a²) xS xᵀ - (r (1 - a²))² Σ_k (xS XᵀU)_k² / v_k is what ridge leaves open; the spread is kept
along the directions in which features vary most, and taken to be alike in the others. A voxel of a known region has
the residual metrics of that region.

    n images, p features, k context coordinates, b residual metrics, g regions, v voxels, h heads, d probes, q queries
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.closed_forms.bases import Metric
from braincorl.validation import FloatArray


@dataclass(frozen=True)
class AttentionPosterior:
    """What is known of every voxel after its context, enough for variances of any new response.

    Attributes
    ----------
    mean
        Mean feature vector of the context (p,).
    values, to_weights
        Λ (g, b, k) and S XᵀU (g, b, p, k) of every region's residual metrics; shorter ranks are filled with 0.
    isotropic, scale
        Of every residual metric (b,); scalar ().
    moment
        G of every region (g, p, p); none where nothing is remembered.
    region
        Which of the g are each voxel's (v,); those of the whole memory where its region is unknown.
    head_basis, head_residual, head_signal
        Residual metric, r (1 - a²) and r of every head (h,).
    probability
        Of every head (v, h).
    probes
        Directions of feature space (d, p), orthonormal.
    between
        Variance between items and heads along them (v, d).
    beyond
        What to multiply that by for the directions that are not probed: a scalar ().
    deviation
        Standard deviation of each voxel's responses (v,); 0 for constant ones.
    n_images
        Images that were read: a scalar ().
    """

    mean: FloatArray
    values: FloatArray
    to_weights: FloatArray
    isotropic: FloatArray
    scale: FloatArray
    moment: FloatArray
    region: npt.NDArray[np.int64]
    head_basis: npt.NDArray[np.int64]
    head_residual: FloatArray
    head_signal: FloatArray
    probability: FloatArray
    probes: FloatArray
    between: FloatArray
    beyond: FloatArray
    deviation: FloatArray
    n_images: npt.NDArray[np.int64]

    @property
    def signal_fraction(self) -> FloatArray:
        """Posterior mean of r (v,)."""
        fraction: FloatArray = self.probability @ self.head_signal.astype(self.probability.dtype)
        return fraction

    @property
    def noise_variance(self) -> FloatArray:
        """Posterior mean of the variance of one response around the encoder (v,)."""
        noise: FloatArray = self.deviation**2 * (1 - self.signal_fraction)
        return noise


def predictive_std(posterior: AttentionPosterior, X: FloatArray) -> FloatArray:
    """Predict the standard deviation of new responses.

    Parameters
    ----------
    posterior
        Of `fit_by_attention`.
    X
        Features of new images (q, p).

    Returns
    -------
    ndarray of shape (q, v)
        In the units of the responses.
    """
    p = posterior
    n_images = int(p.n_images)
    query = X - p.mean
    total = np.empty((len(X), len(p.deviation)), p.probability.dtype)
    for region in np.unique(p.region):
        voxels = np.flatnonzero(p.region == region)
        total[:, voxels] = _left_by_heads(p, int(region), query).astype(total.dtype) @ p.probability[voxels].T
    total += p.beyond * ((query @ p.probes.T) ** 2) @ p.between.T
    # The voxel's variance is itself estimated: the variance of Student's t with n - 1 degrees of freedom.
    total *= np.asarray((n_images - 1) / max(n_images - 3, 1) if n_images > 1 else 1.0, total.dtype)
    std: FloatArray = np.sqrt(total) * p.deviation
    return std.astype(p.probability.dtype)


def _left_by_heads(p: AttentionPosterior, region: int, query: FloatArray) -> FloatArray:
    """Variance that every head leaves to a response, under a region's residual metrics (q, h)."""
    variance = np.empty((len(query), len(p.head_signal)))
    for basis in range(len(p.isotropic)):
        metric = Metric(p.moment[region] if p.moment.size else None, float(p.isotropic[basis]), float(p.scale))
        prior = np.einsum("qp,pq->q", query, metric @ query.T)
        seen = (query @ p.to_weights[region, basis]) ** 2
        for h in np.flatnonzero(p.head_basis == basis):
            r, residual = p.head_signal[h], p.head_residual[h]
            left = residual * prior - seen @ (residual**2 / (residual * p.values[region, basis] + 1 - r))
            variance[:, h] = np.maximum(left, 0.0) + (1 - r) * (1 + 1 / max(int(p.n_images), 1))
    return variance
