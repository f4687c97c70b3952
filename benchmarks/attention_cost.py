"""Seconds, memory and operations of attention and of memories. SIMULATION: numbers drawn at random.

    uv run python benchmarks/attention_cost.py {write,long,learn,whole-brain}

Run it on a quiet machine: products on two cores that something else keeps busy take many times longer.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import measure, print_table

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, RidgeEncoder
from braincorl.metrics import explained_variance
from braincorl.priors.image_digests import NO_IMAGES


def main() -> None:
    """Run the named tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=tuple(TABLES))
    options = parser.parse_args()
    for name in options.tables:
        TABLES[name]()


def matrix_rate(repeats: int = 5) -> float:
    """GFLOP/s of plain float32 products here and now."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    _ = a @ b
    start = time.perf_counter()
    for _ in range(repeats):
        _ = a @ b
    return repeats * 2 * 2048**3 / (time.perf_counter() - start) / 1e9


def write() -> None:
    """20,000 voxels x 100 images x 512 features."""
    from torch.utils.flop_counter import FlopCounterMode

    X, y, _ = _person(100, 512, 20_000)
    makers: dict[str, Any] = {
        "no memory": InContextEncoder(device="cpu"),
        **{f"{n:,} items": GroupPriorEncoder(_memory(n, 512), device="cpu") for n in (4096, 16_384)},
        "Bayesian ridge": BayesianRidgeEncoder(),
    }
    rows = []
    for name, encoder in makers.items():
        with FlopCounterMode(display=False) as counter:
            encoder.fit(X, y)
        seconds, memory = measure(lambda encoder=encoder: encoder.fit(X, y), repeats=1)
        rate, work = matrix_rate(), counter.get_total_flops() / 1e9
        shown = (
            [f"{work:,.0f}", f"{work / seconds:.0f}", f"{rate:.0f}", f"{work / seconds / rate:.2f}"]
            if work
            else [""] * 4
        )
        rows.append([name, f"{seconds:.1f}", f"{memory:.0f}", *shown])
    print(f"20,000 voxels x 100 images x 512 features, float32, {torch.get_num_threads()} threads:")
    print_table(["", "seconds", "peak MiB", "GFLOP", "GFLOP/s", "matrix rate", "share"], rows)


def whole_brain() -> None:
    """226,000 voxels in the memory of 20,000."""
    X, y, _ = _person(100, 512, 226_000)
    seconds, memory = measure(lambda: GroupPriorEncoder(_memory(4096, 512), device="cpu").fit(X, y), repeats=1)
    weights = 226_000 * 512 * 4 / 2**20
    print(
        f"226,000 voxels, 4,096 items: {seconds:.0f} s, {memory:.0f} MiB, of which the encoders are {weights:.0f} MiB"
    )


def long() -> None:
    """Long contexts: seconds and EV of new images."""
    rows = []
    for p in (64, 512):
        for n in (500, 2000, 4000, 10_000):
            for v in (30, 20_000):
                if v * n > 4e7 * 2:  # responses alone would be 800 MB
                    continue
                X, y, weights = _person(n + 300, p, v)
                cells = []
                for encoder in (InContextEncoder(device="cpu"), BayesianRidgeEncoder(), RidgeEncoder()):
                    start = time.perf_counter()
                    encoder.fit(X[:n], y[:n])
                    seconds = time.perf_counter() - start
                    ev = explained_variance(X[n:] @ weights, encoder.predict(X[n:])).mean()
                    cells.append(f"{seconds:.1f} s, {ev:.3f}")
                rows.append([p, n, v, *cells])
    print("SIMULATION: seconds, EV against the noise-free truth on 300 new images:")
    print_table(["features", "images", "voxels", "in-context", "Bayesian ridge", "ridge"], rows)


def learn() -> None:
    """Seconds and memory of remembering people."""
    rows = []
    for people, v, n, p in ((7, 25, 700, 200), (3, 20_000, 9000, 512)):
        data = [_person(n, p, v, seed)[:2] for seed in range(people)]
        seconds, memory = measure(lambda data=data: GroupPrior.fit(data), repeats=1)
        held = sum(y.nbytes for _, y in data) / 2**20
        rows.append(
            [f"{people} x {v:,} voxels x {n:,} images x {p} features", f"{seconds:.1f}", f"{memory:.0f}", f"{held:.0f}"]
        )
    print_table(["people", "seconds", "peak MiB beyond the responses", "responses, MiB"], rows)


def _person(n: int, p: int, v: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """X (n, p), y (n, v), and the weights (p, v) of their signal."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p), dtype=np.float32)
    weights = rng.standard_normal((p, v), dtype=np.float32) / np.float32(np.sqrt(p))
    y = X @ weights
    y += 1.5 * rng.standard_normal((n, v), dtype=np.float32)
    return X, y, weights


def _memory(n_items: int, p: int) -> GroupPrior:
    """Give a memory of random voxels."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((n_items, p)).astype(np.float32) / np.float32(np.sqrt(p))
    moment = weights.T.astype(np.float64) @ weights / n_items
    moment /= np.trace(moment)
    return GroupPrior(
        weights, np.full(n_items, 1 / n_items), np.full(n_items, -1), (), moment, np.zeros(p), np.eye(p),
        image_digests=NO_IMAGES,
    )  # fmt: skip


TABLES: dict[str, Callable[[], None]] = {"write": write, "whole-brain": whole_brain, "long": long, "learn": learn}

if __name__ == "__main__":
    main()
