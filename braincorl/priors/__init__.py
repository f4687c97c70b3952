"""Group priors: what earlier people teach about a new person's voxel weights, in closed form."""

from braincorl.priors.group_prior import GroupPrior, load_prior

__all__ = ["GroupPrior", "load_prior"]
