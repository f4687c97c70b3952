"""Voxelwise encoders with scikit-learn's interface: `fit(X, y)`, `predict(X)`, `score(X, y)`, `save`, `load`."""

from pathlib import Path

from braincorl.encoders.base import LinearEncoder, saved_class
from braincorl.encoders.bayesian_ridge import BayesianRidgeEncoder
from braincorl.encoders.group_prior import GroupPriorEncoder
from braincorl.encoders.ridge import RidgeEncoder
from braincorl.errors import FileFormatError

__all__ = ["BayesianRidgeEncoder", "GroupPriorEncoder", "LinearEncoder", "RidgeEncoder", "load_encoder"]


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
    classes = {cls.__name__: cls for cls in (BayesianRidgeEncoder, GroupPriorEncoder, RidgeEncoder)}
    if name not in classes:
        raise FileFormatError(f"{path} holds a {name}, which this version of braincorl does not know: update it.")
    return classes[name].load(path)
