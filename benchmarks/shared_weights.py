"""Where in-context gains and where it loses: voxels that share what they respond to, and voxels that share nothing.

    uv run python benchmarks/shared_weights.py --draws 5

SIMULATION: 1,500 voxels, 64 features whose spread falls with their number, half of each response's variance signal,
and three tenths of the noise shared by voxels. A part of every voxel's weights lies in eight dimensions that all voxels
have in common, the rest is its own. EV of the noise-free truth on 500 other images; nobody is remembered.
"""

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt
from common import mean_ev, print_table

from braincorl import BayesianRidgeEncoder, InContextEncoder, RidgeEncoder

N_VOXELS, N_FEATURES, N_TEST = 1500, 64, 500
LENGTHS = (20, 50, 100, 300)
SHARES = (0.0, 0.25, 0.5, 1.0)
DIMENSIONS = 8  # that voxels have in common
SHARED_NOISE, NOISE_DIMENSIONS = 0.3, 5
ENCODERS = {"ridge": RidgeEncoder, "Bayesian ridge": BayesianRidgeEncoder, "in-context": InContextEncoder}

Array = npt.NDArray[np.float64]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for share in SHARES:
        scores: dict[str, list[list[float]]] = {name: [[] for _ in LENGTHS] for name in ENCODERS}
        for draw in range(options.draws):
            X, y, truth = simulate(share, np.random.default_rng([draw, 11]))
            for column, n in enumerate(LENGTHS):
                for name, encoder in ENCODERS.items():
                    predicted = encoder().fit(X[:n], y[:n]).predict(X[-N_TEST:])
                    scores[name][column].append(mean_ev(truth[-N_TEST:], predicted))
        for name, columns in scores.items():
            rows.append([f"{share:.0%}", name, *(f"{np.mean(c):.3f} ± {np.std(c):.3f}" for c in columns)])
    print_table(["weights shared", "encoder", *map(str, LENGTHS)], rows)


def simulate(share: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Draw features (n, p), responses (n, v) and their noise-free truth, the test images last."""
    n = max(LENGTHS) + N_TEST
    spread = np.arange(1, N_FEATURES + 1) ** -0.5
    X = rng.standard_normal((n, N_FEATURES)) * spread
    common = low_rank(rng, N_FEATURES, DIMENSIONS)
    weights = np.sqrt(share) * common + np.sqrt(1 - share) * rng.standard_normal((N_FEATURES, N_VOXELS))
    truth = X @ weights
    truth /= truth.std(axis=0)
    own, shared = rng.standard_normal((n, N_VOXELS)), low_rank(rng, n, NOISE_DIMENSIONS)
    noise = np.sqrt(1 - SHARED_NOISE) * own + np.sqrt(SHARED_NOISE) * shared
    return X, np.sqrt(0.5) * truth + np.sqrt(0.5) * noise, truth


def low_rank(rng: np.random.Generator, rows: int, rank: int) -> Array:
    """Draw a matrix (rows, v) of unit variance and this rank."""
    factor: Any = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, N_VOXELS))
    return np.asarray(factor / np.sqrt(rank))


if __name__ == "__main__":
    main()
