"""What one architecture makes of an episode: the input it reads, the loss it learns from, the score it is judged by.

Loss of a voxel: squared error of the predicted signal over the variance of the response, so that a voxel counts as much
as it can be explained. The native network also learns the spread of its predictions, by the likelihood of measured
responses.

    n context images, m query images, V voxels
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from braincorl.encoders.ridge import RidgeEncoder
from braincorl.models import NativeTransformer, ReferenceTransformer
from braincorl.models.smoothers import NAMES, smooth
from braincorl.training.episodes import PreparedEpisode, prepare_episode, standardise
from braincorl.training.worlds import Episode
from braincorl.validation import FloatArray

_SPREAD_WEIGHT = 0.05


class Task(Protocol):
    """How a network of one architecture is taught."""

    def prepare(self, episode: Episode) -> "PreparedEpisode | PlainEpisode":
        """Compute everything that needs no gradient."""

    def loss(self, network: nn.Module, item: "PreparedEpisode | PlainEpisode") -> Tensor:
        """Loss of one episode, a scalar."""

    def predict(self, network: nn.Module, item: "PreparedEpisode | PlainEpisode") -> Tensor:
        """Predicted responses to the queries (m, V), in standardised units."""


@dataclass(frozen=True)
class PlainEpisode:
    """An episode for the published network: unit-norm features, standardised responses.

    Attributes
    ----------
    features
        (n, p).
    responses
        (V, n).
    query_features
        (m, p).
    truth, measured
        (m, V).
    """

    features: Tensor
    responses: Tensor
    query_features: Tensor
    truth: Tensor
    measured: Tensor


class NativeTask:
    """Teaches the native network."""

    def prepare(self, episode: Episode) -> PreparedEpisode:
        """Read the person."""
        return prepare_episode(episode)

    def loss(self, network: nn.Module, item: "PreparedEpisode | PlainEpisode") -> Tensor:
        """Error of the signal, and the likelihood of what was measured."""
        assert isinstance(network, NativeTransformer)
        assert isinstance(item, PreparedEpisode)
        signal, scale, _ = network(item.person)
        predicted = item.readout @ signal
        error = ((predicted - item.truth).square().mean(0) / _variance(item)).mean()
        spread = item.spread * scale
        surprise = spread.log() + 0.5 * ((item.measured - predicted.detach()) / spread).square()
        loss: Tensor = error + _SPREAD_WEIGHT * surprise.mean()
        return loss

    def predict(self, network: nn.Module, item: "PreparedEpisode | PlainEpisode") -> Tensor:
        """Predicted signal of the queries."""
        assert isinstance(network, NativeTransformer)
        assert isinstance(item, PreparedEpisode)
        predicted: Tensor = item.readout @ network(item.person)[0]
        return predicted


class ReferenceTask:
    """Teaches the published network."""

    def __init__(self, n_voxels: int = 32) -> None:
        self.n_voxels = n_voxels

    def prepare(self, episode: Episode) -> PlainEpisode:
        """Scale features to unit norm and responses to unit variance; keep some voxels."""
        episode, kept = standardise(episode, self.n_voxels)

        def unit(X: FloatArray) -> Tensor:
            return torch.from_numpy(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)).float()

        def voxels(values: FloatArray) -> Tensor:
            return torch.from_numpy(values[:, kept]).float()

        return PlainEpisode(
            unit(episode.features),
            voxels(episode.responses).T.contiguous(),
            unit(episode.query_features),
            voxels(episode.truth),
            voxels(episode.measured),
        )

    def loss(self, network: nn.Module, item: "PreparedEpisode | PlainEpisode") -> Tensor:
        """Error of the signal."""
        return ((self.predict(network, item) - item.truth).square().mean(0) / _variance(item)).mean()

    def predict(self, network: nn.Module, item: "PreparedEpisode | PlainEpisode") -> Tensor:
        """Predicted signal of the queries."""
        assert isinstance(network, ReferenceTransformer)
        assert isinstance(item, PlainEpisode)
        weights = network(item.features, item.responses)
        predicted: Tensor = item.query_features @ weights[:, :-1].T + weights[:, -1]
        return predicted


def explained(predicted: Tensor, item: PreparedEpisode | PlainEpisode) -> float:
    """Mean over voxels of the share of a response's variance that a prediction explains, free of noise."""
    left = (item.truth - predicted).var(0)
    return float(((item.truth.var(0) - left) / _variance(item)).mean())


def baselines(episode: Episode, item: PreparedEpisode | PlainEpisode) -> dict[str, float]:
    """Scores of ridge and of every closed form on one episode.

    Parameters
    ----------
    episode
        As drawn.
    item
        As prepared.

    Returns
    -------
    dict
        Name to what `explained` gives.
    """
    ridge = RidgeEncoder().fit(episode.features, episode.responses)
    error = (episode.truth - ridge.predict(episode.query_features)).var(axis=0, ddof=1)
    variance = episode.truth.var(axis=0, ddof=1) + (episode.measured - episode.truth).var(axis=0, ddof=1)
    scores = {"cross-validated ridge": float(((episode.truth.var(axis=0, ddof=1) - error) / variance).mean())}
    if isinstance(item, PreparedEpisode):
        signals = smooth(item.person.smoothers, item.person.z)
        names = ("Bayesian ridge", *NAMES[1:])
        scores |= {name: explained(item.readout @ f, item) for name, f in zip(names, signals, strict=True)}
    return scores


def make_task(architecture: str) -> Task:
    """Give the task of an architecture."""
    return NativeTask() if architecture == "native" else ReferenceTask()


def _variance(item: PreparedEpisode | PlainEpisode) -> Tensor:
    return item.truth.var(0) + (item.measured - item.truth).var(0) + 1e-3
