"""The further layers, where nothing is remembered: all voxels of the person speak for each of them.

In the context's eigenbasis z = Uᵀy a voxel alone has the encoder w = W(z) of ridge heads. Its company adds three:

    components            w = L z           the person's principal components over voxels, each encoded by itself
    smoothed components   w = L' Uᵀ X W(z)  the same of what the voxels alone show
    own metric            w = W_G(z)        ridge heads whose residual metric is the second moment of the encoders
                                            of all voxels, G = Σ_i w_i w_iᵀ, begun from the components'

Components hold less noise than any voxel and are uncorrelated by construction, so that noise that voxels share cannot
pass for signal that they share; but a weak voxel is lost among them. The own metric finds directions of features that
no component names, and trusts shared noise too. They err differently, and the encoder is their plain mean. The first
two are attention of voxels to one another, linear and with the kernel of their own responses; the third is attention's
residual metric, with the person's own voxels for a memory.

    n images, k context coordinates, V voxels, p features
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from torch import Tensor

from braincorl.closed_forms.bases import Basis, Metric
from braincorl.models.attention import AttentionConfig, VoxelAttention

# r of a component: most components are noise, so the grid begins lower than a voxel's.
SIGNALS = (0.02, 0.05, 0.15, 0.3, 0.5, 0.7)
# Encoders that give the own metric: the components', then those under it.
_ROUNDS = 2


def principal_patterns(moment: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Principal components over voxels, unit columns (k, c), from the second moment of projections (k, k)."""
    strengths, patterns = scipy.linalg.eigh(moment, check_finite=False)
    kept = strengths > 1e-10 * max(float(strengths.max(initial=0.0)), 1e-300)
    return np.asarray(patterns[:, kept])


def components_operator(
    basis: Basis,
    patterns: npt.NDArray[np.float64],
    n_images: int,
    temperature: float,
    inside: npt.NDArray[np.float64] | None = None,
    noise: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Matrix that turns a voxel's projections into the weights that the person's components give it.

    Every component is encoded by ridge, averaged over its share of signal by its evidence; a voxel's encoder is the sum
    over components of the component's encoder times the voxel's part in it, w_i = Σ_c W_c (1 - f_c) q_cᵀ z_i = L z_i.
    Of these parts, a share f of the variance over voxels is noise: Wiener's filter takes it out, as curds and whey does
    for canonical components (Breiman and Friedman 1997, doi:10.1111/1467-9868.00054).

    Parameters
    ----------
    basis
        The context.
    patterns
        q of the components, unit columns (k, c).
    n_images
        Images of the context.
    temperature
        Power of the evidence.
    inside
        Share of a component's variance over images that lies in the span of the features (c,); by default all.
    noise
        f, the share of noise in the voxels' parts in a component (c,); by default none.

    Returns
    -------
    ndarray of shape (p, k)
        L.
    """
    signals = np.array(SIGNALS)[:, None]
    marginal = signals * basis.values + 1 - signals
    share = np.ones(patterns.shape[1]) if inside is None else inside
    outside = max(n_images - 1 - len(basis.values), 0) * np.log(1 - signals) + n_images * (1 - share) / (1 - signals)
    # A component of unit variance over the images.
    fit = n_images * share * ((1 / marginal) @ patterns**2)
    evidence = -0.5 * temperature * (np.log(marginal).sum(axis=1)[:, None] + fit + outside)
    probability = np.exp(evidence - np.logaddexp.reduce(evidence, axis=0))
    factor = (signals / marginal).T @ probability
    parts = patterns if noise is None else patterns * (1 - noise)
    return np.asarray(basis.to_weights @ (factor * patterns) @ parts.T)


class OwnVoxels:
    """What a person's voxels have in common, ready to write the encoders of any of them.

    Parameters
    ----------
    config
        Names of the layers, and the power of the evidence.
    layer
        The first layer, without a memory.
    blocks
        Gives the standardised responses of all varying voxels (n, V), in blocks; called once for every pass.
    """

    def __init__(self, config: AttentionConfig, layer: VoxelAttention, blocks: Callable[[], Iterable[Tensor]]) -> None:
        self._layers, self._first, self._basis = config.layers, layer, layer.bases[0]
        self._n_voxels, self._n_outside = 0, max(layer.n_images - 1 - len(self._basis.values), 0)
        n_images, temperature = layer.n_images, config.temperature
        moment, smoothed = self._moments(blocks)
        patterns = principal_patterns(moment)
        inside, noise = self._inside(patterns, blocks), self._noise(moment, patterns)
        components = components_operator(self._basis, patterns, n_images, temperature, inside, noise)
        again = components_operator(self._basis, principal_patterns(smoothed), n_images, temperature)
        self._components, self._again = layer.tensor(components.T), layer.tensor(again.T)
        self._rows = layer.tensor(self._basis.rows.T)
        # All these encoders lie in the span of the context's features: k coordinates say everything.
        length = np.sqrt(np.einsum("kp,kp->k", self._basis.rows, self._basis.rows))
        self._span = self._basis.rows / length[:, None]
        self._back = layer.tensor(self._span)
        if "own metric" in self._layers:
            coordinates = self._span @ components
            second = coordinates @ moment @ coordinates.T
            for _ in range(_ROUNDS - 1):
                self._own = self._under(config, second, length)
                written = (self._own.write(part).coef for part in blocks())
                second = sum((w.T @ w).cpu().numpy().astype(np.float64) for w in written)
            self._own = self._under(config, second, length)

    def write(self, responses: Tensor, alone: Tensor) -> Tensor:
        """Write the encoders of a batch of voxels: the mean over the layers.

        Parameters
        ----------
        responses
            Standardised (n, V).
        alone
            What the first layer wrote (V, p).

        Returns
        -------
        Tensor of shape (V, p)
        """
        total = torch.zeros_like(alone)
        for name in self._layers:
            if name == "alone":
                total += alone
            elif name == "components":
                total += self._first.project(responses).T @ self._components
            elif name == "smoothed components":
                total += (alone @ self._rows) @ self._again
            else:
                total += self._own.write(responses).coef @ self._back
        return total / len(self._layers)

    def _moments(
        self, blocks: Callable[[], Iterable[Tensor]]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Second moments over voxels of responses, and of what the first layer makes of them (k, k)."""
        k = len(self._basis.values)
        moment, smoothed = np.zeros((k, k)), np.zeros((k, k))
        rows = self._first.tensor(self._basis.rows.T)
        for part in blocks():
            self._n_voxels += part.shape[1]
            z = self._first.project(part)
            moment += (z @ z.T).cpu().numpy()
            seen = self._first.write(part).coef @ rows
            smoothed += (seen.T @ seen).cpu().numpy()
        return moment, smoothed

    def _inside(
        self, patterns: npt.NDArray[np.float64], blocks: Callable[[], Iterable[Tensor]]
    ) -> npt.NDArray[np.float64] | None:
        """Share of every component's variance in the span of the features, where there are fewer than images."""
        if not self._n_outside:
            return None
        course, directions = np.zeros((self._first.n_images, patterns.shape[1])), self._first.tensor(patterns)
        for part in blocks():
            course += (part @ (self._first.project(part).T @ directions)).cpu().numpy()
        seen = self._basis.vectors.T @ course
        return np.asarray((seen**2).sum(axis=0) / np.maximum((course**2).sum(axis=0), 1e-300))

    def _noise(
        self, moment: npt.NDArray[np.float64], patterns: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64] | None:
        """Share of noise in the voxels' parts in every component, where directions outside the features tell it.

        What lies there is no linear function of the features; a direction inside has as much of it, in the mean.
        """
        if not self._n_outside:
            return None
        # Standardised responses: every voxel has a sum of squares of n.
        outside = max(self._first.n_images * self._n_voxels - float(np.trace(moment)), 0.0) / self._n_outside
        strengths = ((moment @ patterns) * patterns).sum(axis=0)
        return np.asarray(np.minimum(outside / np.maximum(strengths, 1e-300), 1.0))

    def _under(
        self, config: AttentionConfig, second: npt.NDArray[np.float64], length: npt.NDArray[np.float64]
    ) -> VoxelAttention:
        """Give the first layer under the metric of weights with this second moment, in the context's coordinates."""
        centred = self._basis.vectors * length
        # As much signal in the context's images as isotropic weights have.
        signal, scale, k = float(length**2 @ np.diag(second)), self._first.scale, len(length)
        # An inverse Wishart prior: as if k voxels of isotropic weights had been seen before.
        moment = second * (scale * float((length**2).sum()) / max(signal, 1e-300))
        metric = Metric(moment, k / (k + self._n_voxels), scale)
        nothing = np.zeros((0, len(length)))
        plain = replace(config, layers=("alone",))
        return VoxelAttention(plain, centred, scale, None, nothing, 1, self._first.like, metric=metric)
