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
from group_prior_checks import calibration, outlier, speed
from real_people import (
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
from group_prior_scores import Scores, print_table, score

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, RidgeEncoder

Array = npt.NDArray[Any]


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
                    scores[method, n, draw].append(score(person.responses[2][:, keep], predicted[:, keep]))
    print("actions_fmri, 6 people left out in turn, all voxels that vary, EV / r of session 2.")
    print("The features were made from the other people's responses to the same clips (both sessions).")
    print_table(scores, (5, 10, 20, 40, 60))


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
                            value = score(responses[new][test], encoder.predict(X[test]))
                            scores[method, n, draw].append(value)
            seen_by = "by nobody" if strict else "by the other people"
            print(f"object2vec, {name}, 4 people left out in turn, EV / r of 41 test categories seen {seen_by}:")
            print_table(scores, (0, 5, 10, 20, 40))


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
                        scores[method, n, draw].append(score(np.sqrt(ceiling) * truth[test], predicted))
                    for method, prior in near.items():
                        encoder = GroupPriorEncoder(prior).fit(X[rows], y, positions=new.positions)
                        scores[method, n, draw].append(score(np.sqrt(ceiling) * truth[test], encoder.predict(X[test])))
        kind = "shared by neighbours (half of its variance, 3 voxels wide)" if shared else "independent"
        print(f"bold5000_resnet18, each person from the other, noise-free EV / r, noise {kind}, ceilings .05 to .7:")
        print_table(scores, (10, 20, 50, 100, 200))


def simulated(n_draws: int) -> None:
    """Distance to the Bayes-optimal encoder in a world whose prior is known, by the number of teachers."""
    rng = np.random.default_rng(0)
    exact, pool = simulated_world(rng)
    truth = exact.components
    teachers = [draw_person(truth, pool, 100, 400, rng)[:2] for _ in range(7)]
    priors: dict[str, tuple[GroupPrior, Array | None]] = {
        f"prior from {count} people": (GroupPrior.fit(teachers[:count], X_pool=pool), None) for count in (1, 2, 4, 7)
    }
    priors["the world's own prior"] = (exact, None)
    scores: Scores = defaultdict(list)
    for draw in range(n_draws):
        X, y, weights = draw_person(truth, pool, 200, 400, rng)
        for n in (5, 10, 20, 50, 100, 200):
            for method, encoder, more in _encoders(priors, pool):
                predicted = encoder.fit(X[:n], y[:n], **more).predict(pool)
                scores[method, n, draw].append(score(pool @ weights.T, predicted))
    print("SIMULATION: 32 features, four kinds of voxel; teachers: 400 voxels x 100 images; noise-free EV / r.")
    print("Bayes-optimal is the world's own prior, not hedged:")
    print_table(scores, (5, 10, 20, 50, 100, 200))


def _taught_by(person: WeightsPerson, X: Array) -> tuple[GroupPrior, GroupPrior, GroupPrior]:
    """Learn a Gaussian, a mixture, and a mixture of one component per region."""
    teacher = [PublishedWeights(person.coef)]
    gaussian = GroupPrior.fit(teacher, X_pool=X, n_components=1)
    return gaussian, GroupPrior.fit(teacher, X_pool=X), GroupPrior.fit(teacher, [person.rois], X_pool=X)


def _encoders(
    priors: dict[str, tuple[GroupPrior, Array | None]], pool: Array
) -> Sequence[tuple[str, Any, dict[str, Any]]]:
    encoders: list[tuple[str, Any, dict[str, Any]]] = [
        ("ridge, alpha per voxel", RidgeEncoder(), {}),
        ("Bayesian ridge", BayesianRidgeEncoder(), {"X_pool": pool}),
        ("in-context", InContextEncoder(), {"X_pool": pool}),
    ]
    for name, (prior, rois) in priors.items():
        encoders.append((name, GroupPriorEncoder(prior), {"rois": rois}))
        if "Gaussian" in name:
            continue
        encoders.append((f"{name}, not hedged", GroupPriorEncoder(prior, hedge=False), {"rois": rois}))
        encoders.append((f"in-context with {name}", InContextEncoder(prior=prior), {"rois": rois}))
    return encoders


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
