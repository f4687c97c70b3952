"""Encoders by the names that users give them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from braincorl.encoders.banded_ridge import BandedRidgeEncoder
from braincorl.encoders.base import LinearEncoder
from braincorl.encoders.bayesian_ridge import BayesianRidgeEncoder
from braincorl.encoders.group_prior import GroupPriorEncoder
from braincorl.encoders.ridge import RidgeEncoder
from braincorl.errors import InputError
from braincorl.files import reading
from braincorl.priors import GroupPrior

NETWORK_ENCODER = "in-context"
PRIOR_ENCODER = "group-prior"
SPACES_ENCODER = "banded-ridge"


def make_network_encoder(**options: Any) -> LinearEncoder:
    """Make an `InContextEncoder`; PyTorch takes seconds to import, so only who wants one waits."""
    from braincorl.checkpoint import DEFAULT, find_checkpoint
    from braincorl.encoders.in_context import InContextEncoder

    if options.get("checkpoint", DEFAULT) != DEFAULT:
        find_checkpoint(options["checkpoint"])  # a wrong name is noticed before data are read
    encoder: LinearEncoder = InContextEncoder(**options)
    return encoder


# Those that need nothing but data.
ENCODERS: dict[str, Callable[[], LinearEncoder]] = {
    "ridge": RidgeEncoder,
    "bayesian-ridge": BayesianRidgeEncoder,
    NETWORK_ENCODER: make_network_encoder,
}


def read_prior(path: str | Path) -> GroupPrior:
    """Read a prior that may be of somebody else's making: whole, with its checksum, it may still make no sense.

    Raises
    ------
    InputError
        If there is no such file or name.
    FileFormatError
        If it is damaged, or its numbers are impossible.
    """
    with reading(path, "is no prior of this version"):
        prior = GroupPrior.load(path)
        for name in ("weights", "mass", "moment", "feature_mean", "pool_covariance", "spacing"):
            values = np.asarray(getattr(prior, name))
            if values.dtype.kind not in "fi" or not np.isfinite(values).all():
                raise ValueError(f"its '{name}' are not all finite numbers")
        for name in ("moment", "pool_covariance"):
            matrix = getattr(prior, name)
            if not (np.allclose(matrix, matrix.T) and (np.diag(matrix) >= 0).all() and np.trace(matrix) > 0):
                raise ValueError(f"its '{name}' is no covariance")
        if not (prior.mass > 0).all() or (prior.region >= len(prior.regions)).any():
            raise ValueError("its items have no mass, or a region without a name")
        if not all(isinstance(part, Mapping) for part in (prior.summary, prior.provenance)):
            raise ValueError("its summary or provenance is no table")
        sum(prior.summary.get("n_voxels", []))
    return prior


def make_encoder(name: str, prior: str | Path | GroupPrior | None = None, **options: Any) -> LinearEncoder:
    """Make an encoder that is not fitted yet.

    Parameters
    ----------
    name
        "in-context", "group-prior", "bayesian-ridge", "banded-ridge" or "ridge".
    prior
        Earlier people's voxels, for the first two.
    **options
        Of `InContextEncoder`: checkpoint, device, precision.

    Returns
    -------
    LinearEncoder

    Raises
    ------
    InputError
        If there is no such encoder, it needs a prior, or takes no such option.
    """
    known = (*ENCODERS, PRIOR_ENCODER, SPACES_ENCODER)
    if name not in known:
        raise InputError(f"encoder is {name!r}, expected one of {', '.join(known)}.")
    if name == PRIOR_ENCODER and prior is None:
        raise InputError(f"encoder {PRIOR_ENCODER!r} needs a prior: a GroupPrior, its file, or a shipped name.")
    if prior is not None:
        if name not in (PRIOR_ENCODER, NETWORK_ENCODER):
            raise InputError(f"encoder {name!r} takes no prior: leave it out, or choose {NETWORK_ENCODER!r}.")
        options["prior"] = prior if isinstance(prior, GroupPrior) else read_prior(prior)
    if name == NETWORK_ENCODER:
        return make_network_encoder(**options)
    if name == PRIOR_ENCODER:
        return GroupPriorEncoder(**options)
    if options:
        raise InputError(f"encoder {name!r} takes no {next(iter(options))}: leave it out.")
    return BandedRidgeEncoder() if name == SPACES_ENCODER else ENCODERS[name]()


def encoder_name(encoder: LinearEncoder) -> str:
    """Name that users give an encoder; its class's where they have none."""
    names = {
        "InContextEncoder": NETWORK_ENCODER,
        "GroupPriorEncoder": PRIOR_ENCODER,
        "BandedRidgeEncoder": SPACES_ENCODER,
        "BayesianRidgeEncoder": "bayesian-ridge",
        "RidgeEncoder": "ridge",
    }
    return names.get(type(encoder).__name__, type(encoder).__name__)
