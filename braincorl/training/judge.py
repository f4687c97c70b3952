"""Fixed people on whom a stage is judged, and what ridge and the closed forms reach on them."""

import logging
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from braincorl.training.episodes import Episodes, to_device
from braincorl.training.processes import Processes
from braincorl.training.sources import Draw
from braincorl.training.tasks import Task, baselines, explained

logger = logging.getLogger(__name__)

_SEED = 987_654_321


class Judge:
    """The validation set of a stage; its people are the same whenever the stage is begun or gone on with.

    Parameters
    ----------
    draw
        Draws an episode.
    task
        Of the network's architecture.
    stage
        Number of the stage.
    count
        Episodes, shared out among the processes.
    processes
        Those of the run.

    Attributes
    ----------
    references
        Scores of ridge and of every closed form.
    """

    def __init__(self, draw: Draw, task: Task, stage: int, count: int, processes: Processes) -> None:
        self.task, self.processes = task, processes
        episodes = Episodes(draw, task.prepare, (_SEED, stage), range(count))
        self.items: list[Any] = []
        scores = []
        for number in range(processes.rank, count, processes.count):
            episode = episodes.drawn(number)
            self.items.append(task.prepare(episode))
            scores.append(baselines(episode, self.items[-1]))
        self.references = {name: processes.mean([score[name] for score in scores]) for name in scores[0]}
        logger.info("validation: %s", ", ".join(f"{name} {value:.4f}" for name, value in self.references.items()))

    @property
    def rival(self) -> tuple[str, float]:
        """Name and score of the closed form that a network is compared with in the log."""
        name = "Bayesian ridge" if "Bayesian ridge" in self.references else "cross-validated ridge"
        return name, self.references[name]

    def score(self, network: nn.Module, autocast: AbstractContextManager[Any]) -> float:
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
                explained(self.task.predict(network, to_device(item, self.processes.device)).cpu(), item)
                for item in self.items
            ]
        return self.processes.mean(scores)
