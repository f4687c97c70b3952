"""Voxelwise encoders of visual cortex for a new person, from few images."""

__version__ = "0.1.0"
