"""Features of images: what a backbone says about each picture, with its provenance."""

from braincorl.features.backbones.gabor import GaborConfig
from braincorl.features.backbones.registry import PRESETS
from braincorl.features.embedder import ImageEmbedder
from braincorl.features.store.feature_files import load_features, save_features
from braincorl.features.store.table import FeatureTable, check_same_space, join_tables

__all__ = [
    "PRESETS",
    "FeatureTable",
    "GaborConfig",
    "ImageEmbedder",
    "check_same_space",
    "join_tables",
    "load_features",
    "save_features",
]
