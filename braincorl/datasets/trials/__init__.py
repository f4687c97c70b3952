"""From trials to one response per image and voxel, and a file of a person prepared once."""
