"""Scores of `group_prior.py` and their tables: means over people and draws ± the spread over draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.metrics import explained_variance, pearson_r

Array = npt.NDArray[Any]
Scores = dict[tuple[str, int, int], list[tuple[float, float]]]  # (method, n, draw) -> per person (EV, r)


def score(measured: Array, predicted: Array) -> tuple[float, float]:
    """Mean EV and r over voxels."""
    ev = explained_variance(measured, predicted)
    r = pearson_r(measured, predicted)
    return float(np.nanmean(ev)), float(np.nanmean(r))


def print_table(scores: Scores, counts: Sequence[int]) -> None:
    """Print means and spreads, a row per method and a column per number of images."""
    methods = list(dict.fromkeys(method for method, _, _ in scores))
    print("| EV ± spread / r | " + " | ".join(str(n) for n in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    for method in methods:
        cells = []
        for n in counts:
            values = np.array([np.mean(v, axis=0) for (m, count, _), v in scores.items() if (m, count) == (method, n)])
            if not len(values):
                cells.append("")
                continue
            ev, r = values.mean(axis=0)
            cells.append(f"{ev:.3f} ± {values[:, 0].std():.3f} / {r:.3f}")
        print(f"| {method} | " + " | ".join(cells) + " |")
