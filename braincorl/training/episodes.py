"""Episodes as the network reads them: everything that needs no gradient, computed ahead, in worker processes.

n context images, k = n - 1, m query images, V voxels
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from braincorl.closed_forms.evidence import fit_evidence, predictive_std
from braincorl.errors import InputError
from braincorl.models.person import PersonContext, read_person
from braincorl.models.smoothers import Spectrum, readout
from braincorl.training.worlds import Episode


@dataclass(frozen=True)
class PreparedEpisode:
    """One person, read, with what is to be predicted in standardised units.

    Attributes
    ----------
    person
        What the network reads.
    readout
        Turns signals at the context images into predictions (m, k).
    truth
        Noise-free responses (m, V).
    measured
        With noise (m, V).
    spread
        Predictive standard deviation of Bayesian ridge (m, V).
    """

    person: PersonContext
    readout: Tensor
    truth: Tensor
    measured: Tensor
    spread: Tensor


def prepare_episode(episode: Episode, n_voxels: int = 64) -> PreparedEpisode:
    """Read a person.

    Parameters
    ----------
    episode
        A draw.
    n_voxels
        Voxels to keep for predicting; all of them are read.

    Returns
    -------
    PreparedEpisode
    """
    episode, kept = standardise(episode, n_voxels)
    y = episode.responses
    middle = episode.features.mean(axis=0)
    X, Q = episode.features - middle, episode.query_features - middle
    gram = torch.from_numpy(episode.scale * X @ X.T)
    person, vectors = read_person(gram, torch.from_numpy(y).float(), torch.from_numpy(episode.regions))
    matrix = readout(torch.from_numpy(episode.scale * Q @ X.T), Spectrum(vectors, person.smoothers.values))
    _, _, posterior = fit_evidence(episode.features, y[:, kept], episode.scale)
    return PreparedEpisode(
        person=person.select(torch.from_numpy(kept)),
        readout=matrix.float(),
        truth=torch.from_numpy(episode.truth[:, kept]).float(),
        measured=torch.from_numpy(episode.measured[:, kept]).float(),
        spread=torch.from_numpy(predictive_std(posterior, episode.query_features)).float(),
    )


def standardise(episode: Episode, n_voxels: int) -> tuple[Episode, npt.NDArray[np.intp]]:
    """Give responses in units of every voxel's deviation over the context, from its mean; constant voxels are left out.

    Parameters
    ----------
    episode
        A draw.
    n_voxels
        Voxels to keep for predicting.

    Returns
    -------
    episode : Episode
        All varying voxels.
    kept : ndarray
        Which of them to predict, spread evenly.

    Raises
    ------
    InputError
        If no voxel varies.
    """
    episode = _varying(episode)
    mean, deviation = episode.responses.mean(axis=0), episode.responses.std(axis=0)
    parts = {name: (getattr(episode, name) - mean) / deviation for name in ("responses", "truth", "measured")}
    count = len(mean)
    return replace(episode, **parts), np.linspace(0, count - 1, min(n_voxels, count)).astype(np.intp)


class Episodes(Dataset[Any]):
    """Prepared episodes by number: the same number is the same episode, whoever draws it and when.

    Parameters
    ----------
    draw
        Draws an episode.
    prepare
        Makes of it what the network reads.
    seed
        Of the whole sequence.
    numbers
        Which episodes, in order.
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator], Episode],
        prepare: Callable[[Episode], Any],
        seed: Sequence[int],
        numbers: Sequence[int],
    ) -> None:
        self.draw, self.prepare, self.seed, self.numbers = draw, prepare, list(seed), numbers

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> Any:
        """Draw and prepare one."""
        return self.prepare(self.drawn(index))

    def drawn(self, index: int) -> Episode:
        """Draw one."""
        return self.draw(np.random.default_rng([*self.seed, self.numbers[index]]))


def to_device(item: Any, device: torch.device) -> Any:
    """Move all tensors of nested dataclasses to a device."""
    if device.type == "cpu":
        return item
    if isinstance(item, torch.Tensor):
        return item.to(device)
    if hasattr(item, "__dataclass_fields__"):
        return type(item)(**{name: to_device(getattr(item, name), device) for name in item.__dataclass_fields__})
    return item


def _varying(episode: Episode) -> Episode:
    """Leave out voxels whose responses to the context do not vary."""
    deviation, size = episode.responses.std(axis=0), np.abs(episode.responses).max(axis=0)
    kept = deviation > 1e-9 * size
    if kept.all():
        return episode
    if not kept.any():
        raise InputError("no voxel of an episode varies over its context.")
    parts = {name: getattr(episode, name)[:, kept] for name in ("responses", "truth", "measured")}
    return replace(episode, **parts, regions=episode.regions[kept])
