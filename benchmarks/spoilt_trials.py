"""One trial in 20 spoilt: what it costs, with image weights and without.

    uv run python benchmarks/spoilt_trials.py --draws 5

object2vec, AlexNet's features, real responses. A trial is spoilt on purpose: 4 standard deviations of noise that voxels
share are added to it. EV of the measured responses to 41 categories outside the context.
"""

import argparse
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
from common import mean_ev, print_table
from few_shot_cases import Case, cases

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, RidgeEncoder

LENGTHS = (20, 40)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    rows: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    others, prior = None, None
    for case in cases("object2vec-alexnet20", range(options.draws)):
        if case.n not in LENGTHS:
            continue
        if case.others.key != others:
            others, prior = case.others.key, GroupPrior.fit(case.others.people)
        runs: dict[str, tuple[Any, dict[str, Any]]] = {
            "ridge": (RidgeEncoder(), {}),
            "Bayesian ridge": (BayesianRidgeEncoder(), {"X_pool": case.pool}),
            "in-context": (InContextEncoder(), {"X_pool": case.pool}),
            "group prior": (GroupPriorEncoder(prior), {}),
            "group prior, all images alike": (GroupPriorEncoder(prior, robust=False), {}),
        }
        for state, y in (("as measured", case.y), ("1 in 20 spoilt", spoil(case))):
            for name, (encoder, more) in runs.items():
                predicted = encoder.fit(case.X, y, **more).predict(case.X_test)
                rows[name, state][case.n].append(mean_ev(case.y_test, predicted))
    cells = [[*key, *(f"{np.mean(values[n]):.3f}" for n in LENGTHS)] for key, values in rows.items()]
    print_table(["encoder", "trials", *map(str, LENGTHS)], cells)


def spoil(case: Case) -> npt.NDArray[Any]:
    """Give the context's responses with every twentieth trial spoilt."""
    rng = np.random.default_rng([case.draw, case.person, case.n])
    bad = case.y.copy()
    for image in rng.permutation(case.n)[: case.n // 20]:
        shared = rng.standard_normal(15) @ rng.standard_normal((15, bad.shape[1])) / np.sqrt(15)
        bad[image] += 4 * case.y.std(axis=0) * shared
    return bad


if __name__ == "__main__":
    main()
