"""The processes that share a run: one, or as many as torchrun started; sums and means over all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Processes:
    """Which process this is, of how many.

    Attributes
    ----------
    device
        Where tensors are exchanged.
    rank, count
        Number of this process, from 0, and of all.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls, device: torch.device) -> "Processes":
        """Ask PyTorch's distributed engine, if it runs."""
        return cls(device, dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls(device)

    def mean(self, values: Sequence[float]) -> float:
        """Mean over the values of all processes."""
        totals = torch.tensor([float(np.sum(values)), float(len(values))], dtype=torch.float64, device=self.device)
        if self.count > 1:
            dist.all_reduce(totals)
        return float(totals[0] / totals[1])

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the sum over all processes."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
