"""Voxelwise encoders with scikit-learn's interface: `fit(X, y)`, `predict(X)`, `score(X, y)`, `save`, `load`.

`InContextEncoder` needs PyTorch, so it is imported on first use.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from braincorl.encoders.banded_ridge import BandedRidgeEncoder
from braincorl.encoders.base import LinearEncoder, saved_class
from braincorl.encoders.bayesian_ridge import BayesianRidgeEncoder
from braincorl.encoders.group_prior_encoder import GroupPriorEncoder
from braincorl.encoders.ridge import RidgeEncoder
from braincorl.errors import FileFormatError

__all__ = [
    "BandedRidgeEncoder",
    "BayesianRidgeEncoder",
    "GroupPriorEncoder",
    "InContextEncoder",
    "LinearEncoder",
    "RidgeEncoder",
    "load_encoder",
]

_HOMES = {
    "BandedRidgeEncoder": "braincorl.encoders.banded_ridge",
    "BayesianRidgeEncoder": "braincorl.encoders.bayesian_ridge",
    "GroupPriorEncoder": "braincorl.encoders.group_prior_encoder",
    "InContextEncoder": "braincorl.encoders.in_context",
    "RidgeEncoder": "braincorl.encoders.ridge",
}


def __getattr__(name: str) -> Any:
    if name == "InContextEncoder":
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'braincorl.encoders' has no attribute {name!r}")


def load_encoder(path: str | Path) -> LinearEncoder:
    """Read a saved encoder of any class.

    Parameters
    ----------
    path
        An `encoder.safetensors`.

    Returns
    -------
    LinearEncoder

    Raises
    ------
    InputError
        If the file is missing.
    FileFormatError
        If it is damaged, altered, or no encoder of this version.
    """
    name = saved_class(path)
    if name not in _HOMES:
        raise FileFormatError(f"{path} holds a {name}, which this version of braincorl does not know: update it.")
    encoder: LinearEncoder = getattr(import_module(_HOMES[name]), name).load(path)
    return encoder
