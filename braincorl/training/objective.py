"""What a network learns from an episode, and the score by which it is judged.

Loss of a voxel: squared error of the predicted signal over the variance of the response, so that a voxel counts as much
as it can be explained.

    m query images, V voxels
"""

import numpy as np
from torch import Tensor

from braincorl.encoders.ridge import RidgeEncoder
from braincorl.models import ReferenceTransformer
from braincorl.training.episodes import PreparedEpisode
from braincorl.training.worlds import Episode


def predict(network: ReferenceTransformer, item: PreparedEpisode) -> Tensor:
    """Predicted responses to the queries (m, V), in standardised units."""
    weights = network(item.features, item.responses)
    predicted: Tensor = item.query_features @ weights[:, :-1].T + weights[:, -1]
    return predicted


def error(network: ReferenceTransformer, item: PreparedEpisode) -> Tensor:
    """Loss of one episode, a scalar."""
    return ((predict(network, item) - item.truth).square().mean(0) / _variance(item)).mean()


def explained(predicted: Tensor, item: PreparedEpisode) -> float:
    """Mean over voxels of the share of a response's variance that a prediction explains, free of noise."""
    left = (item.truth - predicted).var(0)
    return float(((item.truth.var(0) - left) / _variance(item)).mean())


def ridge_score(episode: Episode) -> float:
    """Score of cross-validated ridge on one episode, all voxels of it; see `explained`."""
    ridge = RidgeEncoder().fit(episode.features, episode.responses)
    left = (episode.truth - ridge.predict(episode.query_features)).var(axis=0, ddof=1)
    variance = episode.truth.var(axis=0, ddof=1) + (episode.measured - episode.truth).var(axis=0, ddof=1)
    return float(np.mean((episode.truth.var(axis=0, ddof=1) - left) / variance))


def _variance(item: PreparedEpisode) -> Tensor:
    return item.truth.var(0) + (item.measured - item.truth).var(0) + 1e-3
