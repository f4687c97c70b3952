"""People: responses to images, with repeats, sessions, regions and the space that the voxels live in."""

from braincorl.datasets.load import load_subject
from braincorl.datasets.simulation import simulate_people
from braincorl.datasets.space import VoxelSpace
from braincorl.datasets.subject import SubjectData
from braincorl.datasets.volumes import Grid

__all__ = ["Grid", "SubjectData", "VoxelSpace", "load_subject", "simulate_people"]
