"""Seconds and memory of the closed-form encoders beside himalaya's per-voxel kernel ridge, in one process.

SIMULATION: Gaussian features, linear responses with noise; speed does not depend on what they are.

    uv run python benchmarks/closed_form_speed.py
"""

import argparse

import numpy as np
import torch
from common import measure, print_table
from himalaya.backend import set_backend
from himalaya.kernel_ridge import KernelRidgeCV

from braincorl.closed_forms.decomposition import decompose
from braincorl.closed_forms.ridge_solver import auto_alphas
from braincorl.encoders import BayesianRidgeEncoder, RidgeEncoder


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voxels", type=int, default=20_000)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--features", type=int, default=512)
    size = parser.parse_args()
    rng = np.random.default_rng(0)
    X = rng.standard_normal((size.images, size.features)).astype("f4")
    W = rng.standard_normal((size.features, size.voxels)).astype("f4") / np.sqrt(size.features)
    y = (X @ W + 1.5 * rng.standard_normal((size.images, size.voxels))).astype("f4")
    alphas = auto_alphas(decompose(X))

    def himalaya(backend):
        set_backend(backend)
        model = KernelRidgeCV(alphas=alphas, cv=5).fit(X, y)
        return np.asarray(model.get_primal_coef(X.T))  # the weights, as the encoders here give them

    runs = {
        "himalaya KernelRidgeCV, 5 folds (numpy)": lambda: himalaya("numpy"),
        "himalaya KernelRidgeCV, 5 folds (torch)": lambda: himalaya("torch"),
        "RidgeEncoder, leave-one-out": lambda: RidgeEncoder().fit(X, y),
        "RidgeEncoder, 5 folds": lambda: RidgeEncoder(cv=5).fit(X, y),
        "BayesianRidgeEncoder": lambda: BayesianRidgeEncoder().fit(X, y),
    }
    measured = {name: measure(run) for name, run in runs.items()}
    reference = min((measured[name] for name in runs if name.startswith("himalaya")), key=lambda m: m[0])
    print(
        f"{size.voxels} voxels x {size.images} images x {size.features} features, float32, {alphas.size} alphas, "
        f"{torch.get_num_threads()} threads; median of 5; memory beyond the inputs, ratios to the faster himalaya\n"
    )
    rows = [
        [name, f"{s:.3f}", f"{m:.0f}", f"{s / reference[0]:.2f}", f"{m / reference[1]:.2f}"]
        for name, (s, m) in measured.items()
    ]
    print_table(["encoder", "seconds", "peak MiB", "time ratio", "memory ratio"], rows)


if __name__ == "__main__":
    main()
