"""Encoders by the names that users give them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from braincorl.encoders.banded_ridge import BandedRidgeEncoder
from braincorl.encoders.base import LinearEncoder
from braincorl.encoders.bayesian_ridge import BayesianRidgeEncoder
from braincorl.encoders.group_prior_encoder import GroupPriorEncoder
from braincorl.encoders.ridge import RidgeEncoder
from braincorl.errors import InputError
from braincorl.names import NATIVE
from braincorl.priors import GroupPrior, load_prior

NETWORK_ENCODER = "in-context"
PRIOR_ENCODER = "group-prior"
SPACES_ENCODER = "banded-ridge"


def make_network_encoder(**options: Any) -> LinearEncoder:
    """Make an `InContextEncoder`; PyTorch takes seconds to import, so only who wants one waits."""
    from braincorl.checkpoint import find_checkpoint
    from braincorl.encoders.in_context import InContextEncoder

    if options.get("checkpoint", NATIVE) != NATIVE:
        find_checkpoint(options["checkpoint"])  # a wrong name is noticed before data are read
    encoder: LinearEncoder = InContextEncoder(**options)
    return encoder


# Those that need nothing but data.
ENCODERS: dict[str, Callable[[], LinearEncoder]] = {
    "ridge": RidgeEncoder,
    "bayesian-ridge": BayesianRidgeEncoder,
    NETWORK_ENCODER: make_network_encoder,
}


def make_encoder(name: str, prior: str | Path | GroupPrior | None = None, **options: Any) -> LinearEncoder:
    """Make an encoder that is not fitted yet.

    Parameters
    ----------
    name
        "in-context", "group-prior", "bayesian-ridge", "banded-ridge" or "ridge".
    prior
        Earlier people's voxels, for "in-context", "group-prior" and "banded-ridge".
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
        if name not in (PRIOR_ENCODER, NETWORK_ENCODER, SPACES_ENCODER):
            raise InputError(f"encoder {name!r} takes no prior: leave it out, or choose {NETWORK_ENCODER!r}.")
        options["prior"] = load_prior(prior)
    if name == NETWORK_ENCODER:
        return make_network_encoder(**options)
    if name == PRIOR_ENCODER:
        return GroupPriorEncoder(**options)
    if name == SPACES_ENCODER and set(options) <= {"prior"}:
        return BandedRidgeEncoder(**options)
    if options:
        raise InputError(f"encoder {name!r} takes no {next(iter(options))}: leave it out.")
    return ENCODERS[name]()


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
