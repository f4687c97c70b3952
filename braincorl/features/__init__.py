"""Features of images: what a backbone says about each picture, with its provenance."""

from braincorl.features.files import FeatureTable, check_same_space, load_features, save_features

__all__ = ["FeatureTable", "check_same_space", "load_features", "save_features"]
