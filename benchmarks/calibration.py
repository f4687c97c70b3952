"""Do predictive intervals hold what they promise? Real responses, images that nobody has seen, people left out in turn.

uv run python benchmarks/calibration.py --draws 5
"""

import argparse
from collections import defaultdict
from typing import Any

import numpy as np
from common import print_table
from few_shot_cases import DATA_SETS, Case, cases
from scipy.stats import norm

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder

LEVELS = (0.5, 0.8, 0.95)


def main() -> None:
    """Print the share of measured responses inside the intervals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--data", nargs="+", default=list(DATA_SETS[:3]), choices=DATA_SETS[:3])
    options = parser.parse_args()
    for data in options.data:
        inside: dict[tuple[str, int], list[Any]] = defaultdict(list)
        memory: dict[Any, tuple[GroupPrior, GroupPrior]] = {}
        for case in cases(data, range(options.draws)):
            if case.others.key not in memory:
                memory = {case.others.key: _remember(case)}
            for name, encoder, more in _encoders(case, *memory[case.others.key]):
                encoder.fit(case.X, case.y, **more)
                predicted, std = encoder.predict(case.X_test, return_std=True)
                z = np.abs(case.y_test - predicted)[:, case.keep] / std[:, case.keep]
                inside[name, case.n].append([float((z < norm.ppf(0.5 + p / 2)).mean()) for p in LEVELS])
        print(f"{data}: share of measured responses to new images inside the 50 / 80 / 95 % intervals")
        counts = sorted({n for _, n in inside})
        cells = {k: " / ".join(f"{100 * share:.1f}" for share in np.mean(v, axis=0)) for k, v in inside.items()}
        names = dict.fromkeys(name for name, _ in inside)
        print_table(["images", *map(str, counts)], [[name, *(cells[name, n] for n in counts)] for name in names])


def _remember(case: Case) -> tuple[GroupPrior, GroupPrior]:
    o = case.others
    where = {"rois": o.rois} if o.positions is None else {"positions": o.positions}
    return GroupPrior.fit(o.people), GroupPrior.fit(o.people, **where)


def _encoders(case: Case, prior: GroupPrior, anatomical: GroupPrior) -> list[tuple[str, Any, dict[str, Any]]]:
    where = {"rois": case.rois} if case.positions is None else {"positions": case.positions}
    return [
        ("Bayesian ridge", BayesianRidgeEncoder(), {"X_pool": case.pool}),
        ("in-context", InContextEncoder(), {"X_pool": case.pool}),
        ("with a memory", GroupPriorEncoder(prior), {}),
        ("with a memory and anatomy", GroupPriorEncoder(anatomical), where),
    ]


if __name__ == "__main__":
    main()
