"""Recipes of training that take seconds."""

SMALL_RECIPE = """
architecture = "reference"
n_validation = 1
[network]
n_features = 4
width = 8
n_layers = 1
n_heads = 2
ffn_width = 16
n_learned_tokens = 2
[[stages]]
name = "synthetic"
people = 4
people_per_step = 4
validate_every = 1
[stages.world]
n_images = [20, 20]
n_query = 16
n_voxels = [64, 64]
"""
