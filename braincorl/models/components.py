"""The second layer: what a person's voxels have in common speaks for each of them.

The principal components of the responses over voxels are a person's own few time courses; they hold less noise than
any voxel, and are uncorrelated by construction, so that noise that voxels share cannot pass for signal that they
share. Each component is encoded by the ridge heads of the first layer, averaged by their evidence, and a voxel's
encoder is the sum over components of the component's encoder times the voxel's part in it:

    w_i = Σ_c W_c q_cᵀ z_i = L z_i

one matrix for all voxels. It is attention of voxels to one another, linear and with the kernel of their own responses.

    k context coordinates, V voxels, p features
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.linalg

from braincorl.closed_forms.bases import Basis

# r of a component: most components are noise, so the grid begins lower than a voxel's.
SIGNALS = (0.02, 0.05, 0.15, 0.3, 0.5, 0.7)


def components_operator(
    bases: Sequence[Basis], moment: npt.NDArray[np.float64], n_images: int
) -> npt.NDArray[np.float64]:
    """Matrix that turns a voxel's projections into the weights that the person's components give it.

    Parameters
    ----------
    bases
        The context under every residual metric.
    moment
        Mean over voxels of z zᵀ in the first of them (k, k), standardised responses.
    n_images
        Images of the context.

    Returns
    -------
    ndarray of shape (p, k)
        L.
    """
    strengths, patterns = scipy.linalg.eigh(moment, check_finite=False)
    patterns = patterns[:, strengths > 1e-10 * max(strengths[-1], 0.0)] if strengths.size else patterns
    evidence, encoders = [], []
    for basis in bases:
        # A component of unit variance over the images, in this basis.
        z = np.sqrt(n_images) * (basis.vectors.T @ bases[0].vectors) @ patterns
        for signal in SIGNALS:
            marginal = signal * basis.values + 1 - signal
            evidence.append(-0.5 * (np.log(marginal).sum() + (z**2 / marginal[:, None]).sum(axis=0)))
            encoders.append((basis, (signal / marginal)[:, None] * z))
    stacked = np.array(evidence)
    probability = np.exp(stacked - np.logaddexp.reduce(stacked, axis=0)) / np.sqrt(n_images)
    written = sum(basis.to_weights @ (p * z) for p, (basis, z) in zip(probability, encoders, strict=True))
    return np.asarray(written @ patterns.T)
