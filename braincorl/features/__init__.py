"""Features of images: what a backbone says about each picture, with its provenance."""

from braincorl.features.embedder import ImageEmbedder
from braincorl.features.files import load_features, save_features
from braincorl.features.gabor import GaborConfig
from braincorl.features.registry import PRESETS
from braincorl.features.table import FeatureTable, check_same_space

__all__ = [
    "PRESETS",
    "FeatureTable",
    "GaborConfig",
    "ImageEmbedder",
    "check_same_space",
    "load_features",
    "save_features",
]
