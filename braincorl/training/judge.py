"""Fixed people on whom a stage is judged, and what ridge reaches on them."""

import logging
from contextlib import AbstractContextManager
from typing import Any

import torch

from braincorl.models import ReferenceTransformer
from braincorl.training.episodes import Episodes, prepare_episode, to_device
from braincorl.training.objective import explained, predict, ridge_score
from braincorl.training.processes import Processes
from braincorl.training.sources import Draw

logger = logging.getLogger(__name__)

_SEED = 987_654_321  # far from the seeds of recipes, so that validation meets no training episode


class Judge:
    """The validation set of a stage; its people are the same whenever the stage is begun or gone on with.

    Parameters
    ----------
    draw
        Draws an episode.
    stage
        Number of the stage.
    count
        Episodes, shared out among the processes.
    processes
        Those of the run.

    Attributes
    ----------
    ridge
        Score of cross-validated ridge.
    """

    def __init__(self, draw: Draw, stage: int, count: int, processes: Processes) -> None:
        self.processes = processes
        drawn = Episodes(draw, (_SEED, stage), range(count))
        episodes = [drawn.drawn(number) for number in range(processes.rank, count, processes.count)]
        self.items = [prepare_episode(episode) for episode in episodes]
        self.ridge = processes.mean([ridge_score(episode) for episode in episodes])
        logger.info("validation: cross-validated ridge %.4f", self.ridge)

    def score(self, network: ReferenceTransformer, autocast: AbstractContextManager[Any]) -> float:
        """Mean explained variance of a network.

        Parameters
        ----------
        network
            It is put in evaluation mode.
        autocast
            Precision of its products.

        Returns
        -------
        float
        """
        network.eval()
        with torch.no_grad(), autocast:
            scores = [
                explained(predict(network, to_device(item, self.processes.device)).cpu(), item) for item in self.items
            ]
        return self.processes.mean(scores)
