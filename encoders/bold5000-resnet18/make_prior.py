"""Learn the shipped prior `bold5000-resnet18` from published voxel weights.

    python encoders/bold5000-resnet18/make_prior.py WEIGHTS.npz FEATURES.npz OUTPUT.safetensors

WEIGHTS.npz holds `subj{1,2}_{EarlyVis,LOC,OPA,PPA,RSC}_coef` (n_voxels, 512), FEATURES.npz holds `features` (n_images,
512) of any natural images from the same network. See README.md beside this script.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from braincorl import GroupPrior

REGIONS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
PROVENANCE = {
    "backbone": "timm:resnet18",
    "normalized": False,
    "n_features": 512,
    "preprocessing": "RGB over #ffffff; torchvision: interpolation bilinear; mean 0.485,0.456,0.406; resize squash; "
    "size 224; std 0.229,0.224,0.225",
    "layer": "output",
    "pooling": "auto",
    "network": "torchvision ResNet-18, IMAGENET1K_V1 (timm: resnet18.tv_in1k), output of the global average pool",
    "images": "squashed to 224 x 224, ImageNet mean and standard deviation",
    "people": "BOLD5000 subjects 1 and 2, voxelwise weights as published by img2fmri (MIT)",
}


class PublishedWeights:
    """Weights (n_voxels, n_features) of an encoder that was fitted elsewhere."""

    def __init__(self, coef: np.ndarray) -> None:
        self.coef_ = coef


def main() -> None:
    """Learn and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("weights", "features", "output"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    weights = np.load(options.weights)
    pool = np.load(options.features)["features"].astype(np.float64)
    people, rois = [], []
    for subject in (1, 2):
        parts = [weights[f"subj{subject}_{region}_coef"].astype(np.float64) for region in REGIONS]
        people.append(PublishedWeights(np.concatenate(parts)))
        rois.append(np.repeat(REGIONS, [len(part) for part in parts]))
    prior = GroupPrior.fit(people, rois, X_pool=pool, max_items=512, provenance=PROVENANCE)
    # An item that stands for one voxel, like no other, would be that voxel's own weights: left out.
    shared = prior.mass > 1.5 * prior.mass.min()
    prior = replace(
        prior,
        weights=prior.weights[shared],
        mass=prior.mass[shared] / prior.mass[shared].sum(),
        region=prior.region[shared],
        # The features' covariance is kept to three digits, so that the file packs small.
        pool_covariance=prior.pool_covariance.astype(np.float16).astype(np.float64),
    )
    prior.save(options.output)


if __name__ == "__main__":
    main()
