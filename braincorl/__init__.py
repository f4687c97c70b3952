"""Voxelwise encoders of visual cortex for a new person, from few images.

Public names are imported on first use, so that `import braincorl` stays fast.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "BandedRidgeEncoder": "braincorl.encoders",
    "BayesianRidgeEncoder": "braincorl.encoders",
    "Fit": "braincorl.fits",
    "GroupPrior": "braincorl.priors",
    "GroupPriorEncoder": "braincorl.encoders",
    "InContextEncoder": "braincorl.encoders",
    "RidgeEncoder": "braincorl.encoders",
    "convert_reference_checkpoint": "braincorl.checkpoint",
    "fit_person": "braincorl.fits",
    "find_pretrained": "braincorl.storage.named_files",
    "load_checkpoint": "braincorl.checkpoint",
    "load_encoder": "braincorl.encoders",
    "load_pretrained": "braincorl.encoders.pretrained",
    "load_subject": "braincorl.datasets",
    "pretrained_names": "braincorl.storage.named_files",
    "save_pretrained": "braincorl.encoders.pretrained",
    "simulate_people": "braincorl.datasets",
}

__all__ = [
    "BandedRidgeEncoder",
    "BayesianRidgeEncoder",
    "Fit",
    "GroupPrior",
    "GroupPriorEncoder",
    "InContextEncoder",
    "RidgeEncoder",
    "convert_reference_checkpoint",
    "find_pretrained",
    "fit_person",
    "load_checkpoint",
    "load_encoder",
    "load_pretrained",
    "load_subject",
    "pretrained_names",
    "save_pretrained",
    "simulate_people",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'braincorl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
