"""Encoders that the published network would write after each of its layers.

Its first token after every block is read through the network's own readout, or through a linear readout fitted for that
layer alone, which finds what a layer knows in a code that the last layer does not use. Layer 0 is the state before the
first block.

    l layers and one more, v voxels, D width, E features
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from braincorl.errors import InputError
from braincorl.models import ReferenceTransformer
from braincorl.models.reference import ArrayLike

Array = npt.NDArray[np.float64]


def layer_states(network: ReferenceTransformer, features: ArrayLike, responses: ArrayLike) -> Tensor:
    """State of the token that is read out, after each layer.

    Parameters
    ----------
    network
        The published network, of any size.
    features
        Context (n, E), of unit norm.
    responses
        Standardised (v, n).

    Returns
    -------
    Tensor of shape (l + 1, v, D)

    Raises
    ------
    InputError
        If the shapes do not fit the network or one another.
    """
    states: list[Tensor] = []

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        states.append(inputs[0][:, 0])

    def after(_: nn.Module, __: Any, tokens: Tensor) -> None:
        states.append(tokens[:, 0])

    hooks = [network.transformer[0].register_forward_pre_hook(before)]
    hooks += [block.register_forward_hook(after) for block in network.transformer]
    try:
        with torch.no_grad():
            network(features, responses)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(states)


def read_layers(network: ReferenceTransformer, features: ArrayLike, responses: ArrayLike) -> Array:
    """Give the encoders that the network's own readout makes of each layer's state.

    Parameters
    ----------
    network, features, responses
        As in `layer_states`.

    Returns
    -------
    ndarray of shape (l + 1, v, E + 1)
        Weights, then the intercept; the last layer's are what the network returns.
    """
    with torch.no_grad():
        written = network.weight_pred(layer_states(network, features, responses))
    return np.asarray(written.cpu().numpy(), dtype=np.float64)


@dataclass(frozen=True)
class LayerReadouts:
    """Linear readouts of each layer, fitted to known encoders.

    Attributes
    ----------
    weights
        (l + 1, D + 1, E + 1); the last row is the constant's.
    """

    weights: Array

    @classmethod
    def fit(cls, states: npt.ArrayLike, encoders: npt.ArrayLike, penalty: float = 1e-3) -> Self:
        """Fit by ridge regression, each layer for itself.

        Parameters
        ----------
        states
            Of `layer_states`, of many voxels and contexts (l + 1, v, D).
        encoders
            What they should say: true weights and intercepts (v, E + 1), in units of the standardised responses.
        penalty
            Of squared weights, relative to the mean square of the layer's states.

        Returns
        -------
        LayerReadouts

        Raises
        ------
        InputError
            If the numbers of voxels differ, or the penalty is not above 0.
        """
        h, target = np.asarray(states, dtype=np.float64), np.asarray(encoders, dtype=np.float64)
        if h.ndim != 3 or target.ndim != 2 or h.shape[1] != target.shape[0] or not penalty > 0:
            raise InputError(
                f"states has shape {h.shape}, encoders {target.shape}, penalty is {penalty}: expected (l + 1, v, D), "
                "(v, E + 1) and a number above 0."
            )
        fitted = []
        for layer in h:
            mean, middle = layer.mean(axis=0), target.mean(axis=0)
            centred = layer - mean
            gram = centred.T @ centred
            # States that do not vary (layer 0 is the same for every context) leave only the mean encoder.
            lift = penalty * max(float(np.trace(gram)) / len(gram), 1e-12)
            slope = np.linalg.solve(gram + lift * np.eye(len(gram)), centred.T @ (target - middle))
            fitted.append(np.vstack([slope, middle - mean @ slope]))
        return cls(np.stack(fitted))

    def read(self, states: npt.ArrayLike) -> Array:
        """Turn states (l + 1, v, D) into encoders (l + 1, v, E + 1)."""
        h = np.asarray(states, dtype=np.float64)
        return np.asarray(h @ self.weights[:, :-1] + self.weights[:, -1:])
