"""Episodes as the network reads them, by number: what needs no gradient is computed ahead, in worker processes.

n context images, m query images, p features, V voxels
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from braincorl.closed_forms.decomposition import moments, varying_voxels
from braincorl.errors import InputError
from braincorl.training.worlds import Episode
from braincorl.validation import FloatArray


@dataclass(frozen=True)
class PreparedEpisode:
    """An `Episode` with features of unit norm, responses in deviations of every voxel over the context, from its mean.

    The context's `responses` are voxels by images (V, n).
    """

    features: Tensor
    responses: Tensor
    query_features: Tensor
    truth: Tensor
    measured: Tensor


def prepare_episode(episode: Episode, n_voxels: int = 32) -> PreparedEpisode:
    """Scale features to unit norm and responses to unit variance.

    Parameters
    ----------
    episode
        A draw.
    n_voxels
        Voxels to keep, spread evenly over those that vary in the context; the network reads each by itself.

    Returns
    -------
    PreparedEpisode

    Raises
    ------
    InputError
        If no voxel varies.
    """
    mean, deviation = moments(episode.responses)
    varying = np.flatnonzero(varying_voxels(mean, deviation, np.dtype(np.float64)))
    if not varying.size:
        raise InputError("no voxel of an episode varies over its context.")
    kept = varying[np.linspace(0, varying.size - 1, min(n_voxels, varying.size)).astype(np.intp)]

    def unit(X: FloatArray) -> Tensor:
        return torch.from_numpy(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)).float()

    def standardise(values: FloatArray) -> Tensor:
        return torch.from_numpy((values[:, kept] - mean[kept]) / deviation[kept]).float()

    return PreparedEpisode(
        unit(episode.features),
        standardise(episode.responses).T.contiguous(),
        unit(episode.query_features),
        standardise(episode.truth),
        standardise(episode.measured),
    )


class Episodes(Dataset[Any]):
    """Prepared episodes by number: the same number is the same episode, whoever draws it and when.

    Parameters
    ----------
    draw
        Draws an episode.
    seed
        Of the whole sequence.
    numbers
        Which episodes, in order.
    """

    def __init__(
        self, draw: Callable[[np.random.Generator], Episode], seed: Sequence[int], numbers: Sequence[int]
    ) -> None:
        self.draw, self.seed, self.numbers = draw, list(seed), numbers

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> PreparedEpisode:
        """Draw and prepare one."""
        return prepare_episode(self.drawn(index))

    def drawn(self, index: int) -> Episode:
        """Draw one."""
        return self.draw(np.random.default_rng([*self.seed, self.numbers[index]]))


def to_device(item: PreparedEpisode, device: torch.device) -> PreparedEpisode:
    """Move all tensors to a device."""
    return PreparedEpisode(**{name: tensor.to(device) for name, tensor in vars(item).items()})
