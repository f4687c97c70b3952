"""Closed-form encoders in the coordinates of the context: what the native network starts from and chooses among.

With features X (n, p), centred, and c the scale at which isotropic weights give unit variance over a pool of images,
the Gram matrix K = c X Xᵀ = U Λ Uᵀ holds all that the context says about its images, for any number of features.
Responses become z = Uᵀy, k = n - 1 numbers a voxel, and every encoder is a smoother f = A z, the predicted signal at
the context images, from which weights follow as w = c Xᵀ U Λ⁺ f. Five smoothers are computed:

0.  Bayesian ridge: f = E[r λ / (r λ + 1 - r)] z, averaged over the signal share r by the voxel's evidence.
1.  The same on the principal components of the person's responses over voxels, mapped back to voxels. Components are
    uncorrelated by construction, so noise that voxels share cannot pass for signal that they share.
2.  1 applied to the result of 0: what single voxels show, then what the person's voxels show together.
3.  Bayesian ridge whose prior covariance S over images is learned from the person's own voxels: S is the mean posterior
    second moment of unit-signal responses, shrunk toward K, found by EM on responses that 1 has cleaned.
4.  1 under that S.

    n images, k = n - 1, V voxels, Q principal components, S and C smoothers
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from braincorl.models.levels import LEVELS, shrinkage, shrinkage_factors, signal_levels

NAMES = ("ridge", "components", "ridge-components", "own-voxels", "own-voxels-components")
_OWN_ROUNDS = 6
_OWN_SHRINKAGE = 0.3  # pseudo-voxels of K per voxel


@dataclass(frozen=True)
class Spectrum:
    """Images of a context, as the eigenvectors and eigenvalues of their centred Gram matrix.

    Attributes
    ----------
    vectors
        U (n, k), orthonormal and orthogonal to the constant, float64.
    values
        Λ (k,), ascending, float64.
    """

    vectors: Tensor
    values: Tensor


@dataclass(frozen=True)
class Smoothers:
    """What a person's voxels share: enough to smooth any of them.

    Attributes
    ----------
    values
        Λ of the context (k,).
    components
        A of smoother 1 (k, k).
    second
        A of smoother 2, applied to what 0 gives (k, k).
    own_vectors, own_values
        Eigenvectors and eigenvalues of S (k, k), (k,).
    own_components
        A of smoother 4 (k, k).
    strengths
        Mean squares of the principal components of the responses over voxels (k,), strongest first.
    """

    values: Tensor
    components: Tensor
    second: Tensor
    own_vectors: Tensor
    own_values: Tensor
    own_components: Tensor
    strengths: Tensor


def spectrum(gram: Tensor, weights: Tensor | None = None) -> Spectrum:
    """Decompose a Gram matrix after projecting out the constant.

    Parameters
    ----------
    gram
        K (n, n), of features in any origin.
    weights
        Square roots of the images' precisions (n,): K is that of the weighted images, and the constant is these.

    Returns
    -------
    Spectrum
    """
    gram = gram.double()
    constant = torch.ones_like(gram[0]) if weights is None else weights.double()
    constant = constant / constant.norm()
    gram = gram - torch.outer(constant, constant @ gram)
    gram = gram - torch.outer(gram @ constant, constant)
    lift = 2 * gram.diagonal().sum() + 1  # so that the constant is the last eigenvector
    values, vectors = torch.linalg.eigh(gram + lift * torch.outer(constant, constant))
    return Spectrum(vectors[:, :-1], values[:-1].clamp_min(0))


def voxel_components(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components over voxels from the second moment over images.

    Parameters
    ----------
    moment
        Mean over voxels of z zᵀ (k, k).

    Returns
    -------
    patterns : Tensor of shape (k, k)
        Unit vectors in columns, strongest first.
    strengths : Tensor of shape (k,)
    """
    strengths, patterns = torch.linalg.eigh(moment.double())
    return patterns.flip(1), strengths.flip(0).clamp_min(0)


def component_smoother(values: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """Smoother 1: Bayesian ridge on every principal component over voxels.

    Parameters
    ----------
    values
        Λ (k,).
    moment
        Mean over voxels of z zᵀ (k, k).

    Returns
    -------
    smoother : Tensor of shape (k, k)
        A.
    strengths : Tensor of shape (k,)
        Of `voxel_components`.
    """
    patterns, strengths = voxel_components(moment)
    factors = shrinkage(values, patterns * strengths.sqrt())
    factors = factors * (strengths > 1e-10 * strengths[:1])
    return (factors * patterns) @ patterns.T, strengths


def own_covariance(values: Tensor, z: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Learn S, the covariance of unit signals over images, from the person's voxels.

    Parameters
    ----------
    values
        Λ (k,).
    z
        Responses to learn from (k, V).
    chunk
        Voxels at a time.

    Returns
    -------
    vectors : Tensor of shape (k, k)
    values : Tensor of shape (k,)
        In float64.
    """
    levels = LEVELS.to(values)
    gram = torch.diag(values)
    own_values, vectors = values, torch.eye(len(values), dtype=values.dtype, device=values.device)
    n_voxels = z.shape[1]
    for _ in range(_OWN_ROUNDS):
        second = torch.zeros_like(gram)
        share = torch.zeros_like(levels)
        factor = shrinkage_factors(own_values)
        rotation = vectors.to(z)
        for part in torch.split(z, chunk, dim=1):
            rotated = rotation.T @ part
            probability, variance = signal_levels(own_values, rotated)
            scale = (probability * variance * levels.to(z)[:, None]).sum(0)
            signal = (factor.to(z).T @ probability) * rotated / scale.clamp_min(1e-12).sqrt()
            second += (signal @ signal.T).double()
            share += probability.sum(1).double()
        left_open = (share[:, None] * (own_values - factor * own_values)).sum(0)
        learned = vectors @ (second + torch.diag(left_open)) @ vectors.T
        mixed = learned + _OWN_SHRINKAGE * n_voxels * gram
        mixed = mixed * (values.sum() / mixed.diagonal().sum().clamp_min(1e-300))
        own_values, vectors = torch.linalg.eigh(mixed)
        own_values = own_values.clamp_min(0)
    return vectors, own_values


def fit_smoothers(values: Tensor, z: Tensor, chunk: int = 4096) -> Smoothers:
    """Learn from all voxels of a person what smooths each of them.

    Parameters
    ----------
    values
        Λ (k,), float64.
    z
        Standardised responses (k, V).
    chunk
        Voxels at a time; bounds memory, and changes the result only by rounding.

    Returns
    -------
    Smoothers
    """
    n_voxels = z.shape[1]
    moment = torch.zeros(len(values), len(values), dtype=torch.float64, device=z.device)
    ridge_moment = torch.zeros_like(moment)
    for part in torch.split(z, chunk, dim=1):
        moment += (part @ part.T).double()
        ridge = shrinkage(values, part) * part
        ridge_moment += (ridge @ ridge.T).double()
    components, strengths = component_smoother(values, moment / n_voxels)
    second = component_smoother(values, ridge_moment / n_voxels)[0]
    own_vectors, own_values = own_covariance(values, components.to(z) @ z, chunk)
    rotated = own_vectors.T @ (moment / n_voxels) @ own_vectors
    own_components = own_vectors @ component_smoother(own_values, rotated)[0] @ own_vectors.T
    return Smoothers(values, components, second, own_vectors, own_values, own_components, strengths)


def smooth(smoothers: Smoothers, z: Tensor) -> Tensor:
    """Predicted signal of voxels at the context images, by every smoother.

    Parameters
    ----------
    smoothers
        Of the person.
    z
        Responses of some of the person's voxels (k, V).

    Returns
    -------
    Tensor of shape (C, k, V)
        In the order of `NAMES`.
    """
    own = smoothers.own_vectors.to(z)
    ridge = shrinkage(smoothers.values, z) * z
    rotated = own.T @ z
    return torch.stack(
        [
            ridge,
            smoothers.components.to(z) @ z,
            smoothers.second.to(z) @ ridge,
            own @ (shrinkage(smoothers.own_values, rotated) * rotated),
            smoothers.own_components.to(z) @ z,
        ]
    )


def readout(gram: Tensor, context: Spectrum) -> Tensor:
    """Matrix that turns signals at the context images into predictions for others, or into weights.

    Parameters
    ----------
    gram
        Gram matrix between other images and the context's, both centred on the context's mean (m, n); for weights, the
        context's features in the prior's metric, transposed (p, n).
    context
        Of the context.

    Returns
    -------
    Tensor of shape (m, k)
        float64.
    """
    inverse = torch.where(
        context.values > 1e-9 * context.values.max().clamp_min(1e-300), 1 / context.values.clamp_min(1e-300), 0
    )
    projected: Tensor = gram.double() @ context.vectors * inverse
    return projected
