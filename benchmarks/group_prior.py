"""Group priors on real people: python benchmarks/group_prior.py {actions,object2vec,bold5000,...}.

Every table gives means over people and draws ± the spread (standard deviation) over draws of the mean over people.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from group_prior_data import (
    PublishedWeights,
    WeightsPerson,
    draw_noise,
    draw_person,
    load_actions,
    load_bold5000,
    load_object2vec,
    parcels,
    simulated_world,
)
from scipy.stats import norm

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, RidgeEncoder
from braincorl.metrics import explained_variance, pearson_r
from braincorl.priors.components import Components, flat_levels, unit_signal

Array = npt.NDArray[Any]
Scores = dict[tuple[str, int, int], list[tuple[float, float]]]  # (method, n, draw) -> per person (EV, r)


def main() -> None:
    """Run the named tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=tuple(TABLES))
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    for name in options.tables:
        start = time.perf_counter()
        TABLES[name](options.draws)
        print(f"({name}: {time.perf_counter() - start:.0f} s)\n")


def actions(n_draws: int) -> None:
    """Leave one of six people out: prior from session 1 of the others, fit on session 1, score on session 2."""
    people, coordinates = load_actions()
    scores: Scores = defaultdict(list)
    for new, person in enumerate(people):
        others = [(person.features[1], p.responses[1]) for i, p in enumerate(people) if i != new]
        pool, X, y = np.vstack([*person.features.values()]), person.features[1], person.responses[1]
        priors = {"group prior, Gaussian": (GroupPrior.fit(others, n_components=1), None)}
        priors["group prior, mixture"] = (GroupPrior.fit(others), None)
        for count in (60, 300):
            labels = parcels(coordinates, count)
            priors[f"mixture, {count} parcels known"] = (GroupPrior.fit(others, [labels] * 5), labels)
        mean_of_others = np.mean([p.responses[2] for i, p in enumerate(people) if i != new], axis=0)
        near = {"group prior, mixture, neighbours": priors["group prior, mixture"][0]}
        near["mixture of 60 parcels, neighbours"] = priors["mixture, 60 parcels known"][0]
        keep = (np.ptp(y, axis=0) > 0) & (np.ptp(person.responses[2], axis=0) > 0)
        for n in (5, 10, 20, 40, 60):
            for draw in range(n_draws if n < 60 else 1):
                chosen = np.random.default_rng([new, n, draw]).permutation(60)[:n]
                predictions = {"mean of the others, same voxel and clips": mean_of_others}
                for method, encoder, more in _encoders(priors, pool):
                    predictions[method] = encoder.fit(X[chosen], y[chosen], **more).predict(person.features[2])
                for method, prior in near.items():
                    encoder = GroupPriorEncoder(prior).fit(X[chosen], y[chosen], positions=coordinates)
                    predictions[method] = encoder.predict(person.features[2])
                for method, predicted in predictions.items():
                    scores[method, n, draw].append(_score(person.responses[2][:, keep], predicted[:, keep]))
    print("actions_fmri, 6 people left out in turn, all voxels that vary, EV / r of session 2.")
    print("The features were made from the other people's responses to the same clips (both sessions).")
    _table(scores, (5, 10, 20, 40, 60))


def object2vec(n_draws: int) -> None:
    """Leave one of four people out, categories of the test set unseen by anybody or seen by the others."""
    for name in ("alexnet20", "word2vec30"):
        X, responses, rois = load_object2vec(name)
        for strict in (True, False):
            scores: Scores = defaultdict(list)
            for draw in range(n_draws):
                order = np.random.default_rng([draw, 7]).permutation(81)
                test, train = order[:41], order[41:]
                seen = train if strict else order
                for new in range(4):
                    rest = [i for i in range(4) if i != new]
                    others, labels = [(X[seen], responses[i][seen]) for i in rest], [rois[i] for i in rest]
                    priors = {
                        "group prior, Gaussian": (GroupPrior.fit(others, n_components=1), None),
                        "group prior, mixture": (GroupPrior.fit(others), None),
                        "mixture, regions known": (GroupPrior.fit(others, labels), rois[new]),
                    }
                    for n in (0, 5, 10, 20, 40):
                        context = train[:n]
                        for method, encoder, more in _encoders(priors, X):
                            if n < 2 and ("known" not in method or "in-context" in method):
                                continue
                            encoder.fit(X[context], responses[new][context], **more)
                            value = _score(responses[new][test], encoder.predict(X[test]))
                            scores[method, n, draw].append(value)
            seen_by = "by nobody" if strict else "by the other people"
            print(f"object2vec, {name}, 4 people left out in turn, EV / r of 41 test categories seen {seen_by}:")
            _table(scores, (0, 5, 10, 20, 40))


def bold5000(n_draws: int) -> None:
    """Prior from one person's real voxel weights, the other's voxels as new ones, simulated noise."""
    X, people = load_bold5000()
    taught = [_taught_by(person, X) for person in people]
    for shared in (False, True):
        scores: Scores = defaultdict(list)
        for source, target in ((0, 1), (1, 0)):
            new = people[target]
            gaussian, mixture, regional = taught[source]
            priors: dict[str, tuple[GroupPrior, Array | None]] = {
                "group prior, Gaussian": (gaussian, None),
                "group prior, mixture": (mixture, None),
                "mixture, one per region": (regional, None),
                "mixture, regions known": (regional, new.rois),
            }
            near = {"group prior, mixture, neighbours": mixture, "mixture, one per region, neighbours": regional}
            truth = X @ new.coef.T
            truth = (truth - truth.mean(axis=0)) / truth.std(axis=0)
            for draw in range(n_draws):
                rng = np.random.default_rng([source, draw])
                order = rng.permutation(len(X))
                ceiling = rng.uniform(0.05, 0.7, truth.shape[1])
                noise = draw_noise(rng, 200, new.positions, shared)
                for n in (10, 20, 50, 100, 200):
                    rows, test = order[:n], order[600:]
                    y = np.sqrt(ceiling) * truth[rows] + np.sqrt(1 - ceiling) * noise[:n]
                    for method, encoder, more in _encoders(priors, X):
                        predicted = encoder.fit(X[rows], y, **more).predict(X[test])
                        scores[method, n, draw].append(_score(np.sqrt(ceiling) * truth[test], predicted))
                    for method, prior in near.items():
                        encoder = GroupPriorEncoder(prior).fit(X[rows], y, positions=new.positions)
                        scores[method, n, draw].append(_score(np.sqrt(ceiling) * truth[test], encoder.predict(X[test])))
        kind = "shared by neighbours (half of its variance, 3 voxels wide)" if shared else "independent"
        print(f"bold5000_resnet18, each person from the other, noise-free EV / r, noise {kind}, ceilings .05 to .7:")
        _table(scores, (10, 20, 50, 100, 200))


def simulated(n_draws: int) -> None:
    """Distance to the Bayes-optimal encoder in a world whose prior is known, by the number of teachers."""
    rng = np.random.default_rng(0)
    exact, pool = simulated_world(rng)
    truth = exact.components
    teachers = [draw_person(truth, pool, 100, 400, rng)[:2] for _ in range(7)]
    priors: dict[str, tuple[GroupPrior, Array | None]] = {
        f"prior from {count} people": (GroupPrior.fit(teachers[:count], X_pool=pool), None) for count in (1, 2, 4, 7)
    }
    priors["the world's own prior (Bayes-optimal)"] = (exact, None)
    scores: Scores = defaultdict(list)
    for draw in range(n_draws):
        X, y, weights = draw_person(truth, pool, 200, 400, rng)
        for n in (5, 10, 20, 50, 100, 200):
            for method, encoder, more in _encoders(priors, pool):
                predicted = encoder.fit(X[:n], y[:n], **more).predict(pool)
                scores[method, n, draw].append(_score(pool @ weights.T, predicted))
    print("SIMULATION: 32 features, four kinds of voxel; teachers: 400 voxels x 100 images; noise-free EV / r:")
    _table(scores, (5, 10, 20, 50, 100, 200))


def calibration(n_draws: int) -> None:
    """Share of left-out real responses inside predictive intervals."""
    X, responses, rois = load_object2vec("alexnet20")
    inside: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    for draw in range(n_draws):
        order = np.random.default_rng([draw, 7]).permutation(81)
        test, train = order[:41], order[41:]
        for new in range(4):
            rest = [i for i in range(4) if i != new]
            prior = GroupPrior.fit([(X[train], responses[i][train]) for i in rest], [rois[i] for i in rest])
            for n in (10, 20, 40):
                for method, encoder, more in (
                    ("Bayesian ridge", BayesianRidgeEncoder(), {"X_pool": X}),
                    ("group prior", GroupPriorEncoder(prior), {}),
                    ("group prior, regions known", GroupPriorEncoder(prior), {"rois": rois[new]}),
                ):
                    encoder.fit(X[train[:n]], responses[new][train[:n]], **more)
                    predicted, std = encoder.predict(X[test], return_std=True)
                    z = np.abs(responses[new][test] - predicted) / std
                    inside[method, n].append([float((z < norm.ppf(0.5 + p / 2)).mean()) for p in (0.5, 0.8, 0.95)])
    print("object2vec, alexnet20, real responses to 41 categories seen by nobody, inside the 50 / 80 / 95 % intervals:")
    print("| method | images | 50 % | 80 % | 95 % |\n|---|---|---|---|---|")
    for (method, n), values in inside.items():
        print(f"| {method} | {n} | " + " | ".join(f"{share:.3f}" for share in np.mean(values, axis=0)) + " |")


def outlier(n_draws: int) -> None:
    """One spoilt trial among the context, with image weights and without (real data, one trial spoilt on purpose)."""
    X, responses, _ = load_object2vec("alexnet20")
    scores: Scores = defaultdict(list)
    for draw in range(n_draws):
        order = np.random.default_rng([draw, 7]).permutation(81)
        test, train = order[:41], order[41:]
        for new in range(4):
            prior = GroupPrior.fit([(X[train], responses[i][train]) for i in range(4) if i != new])
            for n in (5, 10, 20, 40):
                rng = np.random.default_rng([draw, new, n])
                good = responses[new][train[:n]]
                bad = good.copy()
                shared = rng.standard_normal(15) @ rng.standard_normal((15, good.shape[1])) / np.sqrt(15)
                bad[rng.integers(n)] += 4 * good.std(axis=0) * shared
                for state, y in (("as measured", good), ("one trial spoilt", bad)):
                    for weighting in (True, False):
                        encoder = GroupPriorEncoder(prior, robust=weighting).fit(X[train[:n]], y)
                        method = f"{state}, {'weighted' if weighting else 'all images alike'}"
                        scores[method, n, draw].append(_score(responses[new][test], encoder.predict(X[test])))
    print(
        "object2vec, alexnet20, group prior (mixture), categories seen by nobody; spoilt: 4 sd of noise in one trial:"
    )
    _table(scores, (5, 10, 20, 40))


def speed(_: int) -> None:
    """Seconds and memory beside himalaya, in one process."""
    from common import measure
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV

    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 512)).astype("f4")
    y = (X @ rng.standard_normal((512, 20_000)) / 23 + 1.5 * rng.standard_normal((100, 20_000))).astype("f4")
    parts = Components(
        mean=rng.standard_normal((20, 512)),
        factor=rng.standard_normal((20, 512, 64)),
        floor=np.ones(20),
        weight=np.full(20, 0.05),
        level_probability=np.tile(flat_levels(), (20, 1)),
    )
    prior = GroupPrior(unit_signal(parts, np.eye(512)), np.full((2, 20), 0.05), (), np.zeros(512), np.eye(512))
    set_backend("numpy")
    alphas = np.logspace(-1, 6, 22) * 512
    runs = {
        "himalaya KernelRidgeCV, 22 alphas, 5 folds": lambda: (
            KernelRidgeCV(alphas=alphas, cv=5).fit(X, y).get_primal_coef(X.T)
        ),
        "GroupPriorEncoder, 20 components": lambda: GroupPriorEncoder(prior).fit(X, y),
    }
    measured = {name: measure(run, repeats=3) for name, run in runs.items()}
    base = next(iter(measured.values()))
    print("SIMULATION: 20,000 voxels x 100 images x 512 features, float32; median of 3; memory beyond the inputs:")
    print("| encoder | seconds | peak MiB | time ratio |\n|---|---|---|---|")
    for name, (seconds, memory) in measured.items():
        print(f"| {name} | {seconds:.2f} | {memory:.0f} | {seconds / base[0]:.1f} |")


def _taught_by(person: WeightsPerson, X: Array) -> tuple[GroupPrior, GroupPrior, GroupPrior]:
    """Learn a Gaussian, a mixture, and a mixture of one component per region."""
    teacher = [PublishedWeights(person.coef)]
    gaussian = GroupPrior.fit(teacher, X_pool=X, n_components=1)
    return gaussian, GroupPrior.fit(teacher, X_pool=X), GroupPrior.fit(teacher, [person.rois], X_pool=X)


def _encoders(
    priors: dict[str, tuple[GroupPrior, Array | None]], pool: Array
) -> Sequence[tuple[str, Any, dict[str, Any]]]:
    baselines: list[tuple[str, Any, dict[str, Any]]] = [
        ("ridge, alpha per voxel", RidgeEncoder(), {}),
        ("Bayesian ridge", BayesianRidgeEncoder(), {"X_pool": pool}),
        ("in-context", InContextEncoder(), {"X_pool": pool}),
    ]
    for name, (prior, rois) in priors.items():
        baselines.append((name, GroupPriorEncoder(prior), {"rois": rois}))
        baselines.append((f"in-context, {name}", InContextEncoder(prior=prior), {"rois": rois}))
    return baselines


def _score(measured: Array, predicted: Array) -> tuple[float, float]:
    ev = explained_variance(measured, predicted)
    r = pearson_r(measured, predicted)
    return float(np.nanmean(ev)), float(np.nanmean(r))


def _table(scores: Scores, counts: Sequence[int]) -> None:
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


TABLES: dict[str, Callable[[int], None]] = {
    "actions": actions,
    "object2vec": object2vec,
    "bold5000": bold5000,
    "simulated": simulated,
    "calibration": calibration,
    "outlier": outlier,
    "speed": speed,
}

if __name__ == "__main__":
    main()
