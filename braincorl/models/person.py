"""What the native network reads of a person: responses in the context's coordinates, smoothers, and how well they do.

Everything here is computed in closed form, without gradients, once for the person.

    n images, k = n - 1 context coordinates, V voxels, C smoothers
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from braincorl.models.levels import LEVELS, signal_levels
from braincorl.models.smoothers import NAMES, Smoothers, fit_smoothers, readout, smooth, spectrum

N_STATISTICS, N_SHAPE = 6, 7
_FOLDS = 5
_FEWEST_TO_FOLD = 4
_LIMIT = 3.0  # statistics beyond carry no more information and upset the network


@dataclass(frozen=True)
class PersonContext:
    """What the network reads of one person; everything is computed without gradients.

    Attributes
    ----------
    z
        Standardised responses in the context's coordinates (k, V).
    smoothers
        What the voxels share.
    statistics
        Of every closed-form smoother and voxel (V, C, 6).
    group_statistics
        Their means over the voxels of the same region (V, C, 6); over all voxels where regions are unknown.
    person_statistics
        Their means over all voxels (C, 6).
    levels
        Mean and standard deviation of the voxel's signal share r (V, 2).
    shape
        Numbers that describe the context (7,): lengths, ranks.
    """

    z: Tensor
    smoothers: Smoothers
    statistics: Tensor
    group_statistics: Tensor
    person_statistics: Tensor
    levels: Tensor
    shape: Tensor

    def select(self, voxels: Tensor) -> "PersonContext":
        """Keep some voxels (by index); what all of them share stays."""
        return replace(
            self,
            z=self.z[:, voxels],
            statistics=self.statistics[voxels],
            group_statistics=self.group_statistics[voxels],
            levels=self.levels[voxels],
        )


def read_person(
    gram: Tensor,
    responses: Tensor,
    regions: Tensor | None = None,
    weights: Tensor | None = None,
    chunk: int = 4096,
) -> tuple[PersonContext, Tensor]:
    """Compute what the network reads.

    Parameters
    ----------
    gram
        K (n, n), scaled to mean variance 1 over the pool, any origin.
    responses
        Standardised responses (n, V).
    regions
        Index of every voxel's region (V,); -1 where unknown.
    weights
        Square roots of the images' precisions (n,).
    chunk
        Voxels at a time.

    Returns
    -------
    person : PersonContext
    vectors : Tensor of shape (n, k)
        U, from `spectrum`, of the weighted images.
    """
    if weights is not None:
        gram, responses = gram * torch.outer(weights, weights).to(gram), responses * weights[:, None].to(responses)
    context = spectrum(gram, weights)
    z = (context.vectors.T.to(responses) @ responses).contiguous()
    smoothers = fit_smoothers(context.values, z, chunk)
    held_out = held_out_products(gram, responses, weights, chunk)
    n_voxels = z.shape[1]
    statistics = torch.empty(n_voxels, len(NAMES), N_STATISTICS, dtype=z.dtype, device=z.device)
    levels = torch.empty(n_voxels, 2, dtype=z.dtype, device=z.device)
    for start in range(0, n_voxels, chunk):
        part = slice(start, start + chunk)
        statistics[part, :, :4] = held_out[part]
        statistics[part, :, 4:] = fit_statistics(z[:, part], smooth(smoothers, z[:, part]))
        levels[part] = _level_moments(context.values, z[:, part])
    return PersonContext(
        z=z,
        smoothers=smoothers,
        statistics=statistics,
        group_statistics=_group_means(statistics, regions),
        person_statistics=statistics.mean(0),
        levels=levels,
        shape=_shape(smoothers, n_voxels),
    ), context.vectors


def fit_statistics(z: Tensor, signals: Tensor) -> Tensor:
    """How much of the responses a smoother keeps: <z, f> and <f, f> over <z, z>, (V, C, 2)."""
    energy = z.square().sum(0).clamp_min(1e-12)
    return torch.stack([(z * signals).sum(1) / energy, signals.square().sum(1) / energy], dim=-1).transpose(0, 1)


def held_out_products(gram: Tensor, responses: Tensor, weights: Tensor | None, chunk: int) -> Tensor:
    """How well every smoother predicts images that it was not shown, by voxel.

    Parameters
    ----------
    gram
        K (n, n), of weighted images where they are.
    responses
        (n, V), likewise.
    weights
        Square roots of precisions (n,).
    chunk
        Voxels at a time.

    Returns
    -------
    Tensor of shape (V, C, 4)
        With y the responses and p the predictions of left-out images, both from the mean of the others: <y, p>,
        <p, p>, <p, p of Bayesian ridge>, and 2<y, p> - <p, p>, all over <y, y>. Zeros for fewer than four different
        images.
    """
    n_images, n_voxels = responses.shape
    scale = torch.ones(n_images, dtype=gram.dtype, device=gram.device) if weights is None else weights.to(gram)
    plain = gram / torch.outer(scale, scale)
    fold = draw_folds(plain)
    n_folds = int(fold.max()) + 1
    if n_folds < _FEWEST_TO_FOLD:
        return responses.new_zeros(n_voxels, len(NAMES), 4)
    products, energy = responses.new_zeros(n_voxels, len(NAMES), 3), responses.new_zeros(n_voxels)
    for index in range(n_folds):
        inside, outside = (fold != index).nonzero()[:, 0], (fold == index).nonzero()[:, 0]
        own = scale[inside]
        mean_weight = own.square() / own.square().sum()
        context = spectrum(gram[inside][:, inside], own)
        mean = ((own / own.square().sum()).to(responses) @ responses[inside])[None]
        z = context.vectors.T.to(responses) @ (responses[inside] - own[:, None].to(responses) * mean)
        smoothers = fit_smoothers(context.values, z, chunk)
        cross = plain[outside][:, inside] - mean_weight @ plain[inside][:, inside]
        matrix = readout(cross * own, context).to(responses)
        own_scale = scale[outside][:, None].to(responses)
        for start in range(0, n_voxels, chunk):
            part = slice(start, start + chunk)
            predicted = own_scale * (matrix @ smooth(smoothers, z[:, part]))
            y = responses[outside][:, part] - own_scale * mean[:, part]
            energy[part] += y.square().sum(0)
            sums = [(y * predicted).sum(1), predicted.square().sum(1), (predicted * predicted[:1]).sum(1)]
            products[part] += torch.stack(sums, dim=-1).transpose(0, 1)
    products = products / energy.clamp_min(1e-12)[:, None, None]
    return torch.cat([products, 2 * products[..., :1] - products[..., 1:2]], dim=-1).clamp(-_LIMIT, _LIMIT)


def draw_folds(gram: Tensor) -> Tensor:
    """Assign images to folds by their distance from the middle, since their order must not matter.

    Parameters
    ----------
    gram
        K (n, n), any origin.

    Returns
    -------
    Tensor of shape (n,)
        Fold of every image. Copies of an image share one: none is predicted from another.
    """
    centred = centre_gram(gram)
    energy = centred.diagonal()
    apart = energy[:, None] + energy - 2 * centred
    leader = (apart <= 1e-9 * energy.max()).int().argmax(1)
    unique, group = torch.unique(leader, return_inverse=True)
    rank = energy[unique].argsort(stable=True).argsort()
    return rank[group] % _FOLDS


def centre_gram(gram: Tensor) -> Tensor:
    """Gram matrix of features after their mean has been taken off."""
    mean = gram.mean(0, keepdim=True)
    return gram - mean - mean.T + mean.mean()


def _level_moments(values: Tensor, z: Tensor) -> Tensor:
    """Mean and standard deviation of r (V, 2)."""
    probability, _ = signal_levels(values, z)
    levels = LEVELS.to(z)
    mean = levels @ probability
    return torch.stack([mean, (levels.square() @ probability - mean.square()).clamp_min(0).sqrt()], dim=1)


def _group_means(statistics: Tensor, regions: Tensor | None) -> Tensor:
    """Mean of the statistics over the voxels of the same region, or over all (V, C, 6)."""
    everyone = statistics.mean(0).expand_as(statistics)
    if regions is None:
        return everyone
    known = regions >= 0
    index = regions.clamp_min(0)
    total = torch.zeros(int(index.max()) + 1, *statistics.shape[1:], dtype=statistics.dtype, device=statistics.device)
    total.index_add_(0, index[known], statistics[known])
    count = torch.bincount(index[known], minlength=len(total)).clamp_min(1).to(statistics)
    return torch.where(known[:, None, None], (total / count[:, None, None])[index], everyone)


def _shape(smoothers: Smoothers, n_voxels: int) -> Tensor:
    """Lengths and effective ranks of a context (7,)."""
    k = len(smoothers.values)

    def spread(values: Tensor) -> Tensor:
        return values.sum().square() / values.square().sum().clamp_min(1e-300) / k

    numbers = [
        torch.tensor(k + 1.0).log() / 5,
        torch.tensor(float(n_voxels)).log() / 9,
        spread(smoothers.values),
        spread(smoothers.strengths),
        spread(smoothers.own_values),
        (smoothers.values > 1e-6 * smoothers.values.max()).double().mean(),
        smoothers.values.mean().clamp_min(1e-6).log(),
    ]
    return torch.stack([number.to(smoothers.components) for number in numbers]).float()
