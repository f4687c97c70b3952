"""What encoders are asked, measured: feature spaces beside himalaya, significance on noise, identification.

    uv run python benchmarks/questions.py spaces         # EV and shares, simulated and object2vec, and time
    uv run python benchmarks/questions.py significance   # false discoveries and coverage of intervals, SIMULATION
    uv run python benchmarks/questions.py identify       # object2vec, actions, simulated people
    uv run python benchmarks/questions.py decode         # the posterior over features: is it as sure as it is right?
    uv run python benchmarks/questions.py memory         # earlier people's weights as priors of spaces, object2vec
    uv run python benchmarks/questions.py cost           # time and memory beside himalaya; of 1,000 permutations

Simulated numbers say that they are. Real people are those of `real_people.py`.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from himalaya.kernel_ridge import MultipleKernelRidgeCV
from himalaya.ridge import GroupRidgeCV
from real_people import load_actions, load_object2vec

from braincorl import (
    BandedRidgeEncoder,
    BayesianRidgeEncoder,
    GroupPrior,
    GroupPriorEncoder,
    InContextEncoder,
    RidgeEncoder,
)
from braincorl.analysis import context_noise, feature_posterior, identify, partition_variance, permutation_test
from braincorl.datasets import simulate_people
from braincorl.metrics import explained_variance
from braincorl.questions.feature_posterior import FeaturePrior

Array = npt.NDArray[np.float64]
Spaces = dict[str, Array]

SHARES = {2: 0.5, 3: 0.5}  # concentration of the Dirichlet that simulated shares are drawn from


def himalaya(X: Spaces, y: Array, new: Spaces, n_iter: int = 100) -> Array:
    """Banded kernel ridge by random search with five folds, on centred kernels of unit mean trace."""
    mean = {name: part.mean(axis=0) for name, part in X.items()}
    size = {name: np.sqrt(np.square(part - mean[name]).sum(axis=1).mean()) for name, part in X.items()}
    ours, theirs = ([(part - mean[name]) / size[name] for name, part in features.items()] for features in (X, new))
    model = MultipleKernelRidgeCV(
        kernels="precomputed", solver="random_search", cv=5, random_state=0,
        solver_params={"n_iter": n_iter, "alphas": np.logspace(-5, 5, 21), "progress_bar": False},
    )  # fmt: skip
    model.fit(np.stack([part @ part.T for part in ours]), y - y.mean(axis=0))
    kernels = np.stack([a @ b.T for a, b in zip(theirs, ours, strict=True)])
    return np.asarray(model.predict(kernels)) + y.mean(axis=0)


def himalaya_group_ridge(X: Spaces, y: Array, n_iter: int = 100) -> GroupRidgeCV:
    """Himalaya's banded ridge by the features themselves, which is cheaper where images outnumber them."""
    search = {"n_iter": n_iter, "alphas": np.logspace(-5, 5, 21), "progress_bar": False, "warn": False}
    model = GroupRidgeCV(groups="input", cv=5, random_state=0, fit_intercept=True, solver_params=search)
    return model.fit(list(X.values()), y)


def draw_voxels(rng: np.random.Generator, n: int, sizes: tuple[int, ...], n_voxels: int) -> tuple[Any, ...]:
    """Draw spaces with a 1/rank spectrum and voxels of known shares (SIMULATION): train, test, explained shares."""
    X = [rng.standard_normal((n + 300, p)) / np.sqrt(1 + np.arange(p)) for p in sizes]
    share = rng.dirichlet([SHARES[len(sizes)]] * len(sizes), n_voxels)
    r = rng.uniform(0.05, 0.7, n_voxels)
    y = np.sqrt(1 - r) * rng.standard_normal((n + 300, n_voxels))
    for part, weight in zip(X, share.T, strict=True):
        signal = part @ rng.standard_normal((part.shape[1], n_voxels))
        y += np.sqrt(r * weight) * (signal - signal.mean(axis=0)) / signal.std(axis=0)
    names = [f"space-{s}" for s in range(len(sizes))]
    train, test = ({k: part[rows] for k, part in zip(names, X, strict=True)} for rows in (slice(n), slice(n, None)))
    return train, y[:n], test, y[n:], share * r[:, None]


def joined(X: Spaces) -> Array:
    return np.concatenate(list(X.values()), axis=1)


def spaces(n_draws: int) -> Iterator[dict[str, Any]]:
    for n_spaces in (2, 3):
        for n in (20, 100, 1000):
            for draw in range(n_draws if n < 1000 else 1):
                rng = np.random.default_rng(draw)
                X, y, new, truth, shares = draw_voxels(rng, n, (50, 400, 100)[:n_spaces], 200)
                row = {"data": f"SIMULATION, {n_spaces} spaces", "images": n, "draw": draw}
                start = time.perf_counter()
                encoder = BandedRidgeEncoder(partition=False).fit(X, y)
                ours = time.perf_counter() - start
                start = time.perf_counter()
                theirs = himalaya(X, y, new, 100 if n < 1000 else 10)
                row["time / himalaya"] = ours / (time.perf_counter() - start)
                row["banded ridge"] = explained_variance(truth, encoder.predict(new)).mean()
                row["himalaya"] = explained_variance(truth, theirs).mean()
                one = BayesianRidgeEncoder().fit(joined(X), y).predict(joined(new))
                row["Bayesian ridge, one space"] = explained_variance(truth, one).mean()
                row["r of shares"] = np.corrcoef(encoder.shares_.ravel(), shares.ravel())[0, 1]
                row["bias of shares"] = np.abs((encoder.shares_ - shares).mean(axis=0)).max()
                yield row
    alexnet, people, _ = load_object2vec("alexnet20")
    words, _, _ = load_object2vec("word2vec30")
    for n in (10, 20, 40, 60):
        for draw in range(n_draws):
            order = np.random.default_rng(draw).permutation(81)
            for y in people:
                X, new = ({"AlexNet": alexnet[rows], "word2vec": words[rows]} for rows in (order[:n], order[n:]))
                truth = y[order[n:]]
                encoder = BandedRidgeEncoder().fit(X, y[order[:n]], X_pool={"AlexNet": alexnet, "word2vec": words})
                row = {"data": "object2vec", "images": n, "draw": draw}
                row["banded ridge"] = explained_variance(truth, encoder.predict(new)).mean()
                row["himalaya"] = explained_variance(truth, himalaya(X, y[order[:n]], new)).mean()
                one = BayesianRidgeEncoder().fit(joined(X), y[order[:n]]).predict(joined(new))
                row["Bayesian ridge, one space"] = explained_variance(truth, one).mean()
                parts = partition_variance(encoder, new, truth, n_bootstrap=1).values
                row |= {f"{name} alone": parts["alone", name].mean() for name in X}
                row |= {f"{name} unique": parts["unique", name].mean() for name in X}
                yield row


def significance(n_draws: int) -> Iterator[dict[str, Any]]:
    for draw in range(10 * n_draws):
        rng = np.random.default_rng(draw)
        X, y, new, truth, _ = draw_voxels(rng, 60, (20, 60), 300)
        truth = truth[:80]
        truth[:, 200:] = rng.standard_normal((80, 100)) + rng.standard_normal((80, 1))  # noise, half of it shared
        encoder = BandedRidgeEncoder().fit(X, y)
        some = {name: part[:80] for name, part in new.items()}
        test = permutation_test(truth, encoder.predict(some), 1000, random_state=draw)
        found = test.q < 0.05
        yield {
            "data": "SIMULATION",
            "noise voxels at p < .05": np.mean(test.p[200:] <= 0.05),
            "false discoveries at q < .05": found[200:].sum() / max(found.sum(), 1),
            "told voxels found": found[:200].mean(),
        }


def cover(n_draws: int) -> Iterator[dict[str, Any]]:
    """Parts of one encoder on many images are its truth, which intervals on 80 of them should hold."""
    for draw in range(n_draws):
        rng = np.random.default_rng(draw)
        X, y, new, truth, _ = draw_voxels(rng, 60, (20, 60), 60)
        encoder = BandedRidgeEncoder().fit(X, y)
        exact = partition_variance(encoder, new, truth, n_bootstrap=1).values
        some = {name: part[:60] for name, part in new.items()}
        part = partition_variance(encoder, some, truth[:60], n_bootstrap=500)
        for key in exact:
            yield {
                "data": "SIMULATION (truth of 300 images)",
                "part": key[0],
                "bias": np.mean(part.values[key] - exact[key]),
                "coverage of 95 %": np.mean((part.low[key] <= exact[key]) & (exact[key] <= part.high[key])),
            }


ENCODERS: dict[str, Callable[[], Any]] = {
    "ridge": RidgeEncoder,
    "Bayesian ridge": BayesianRidgeEncoder,
    "in-context": InContextEncoder,
}


def identified(n_draws: int) -> Iterator[dict[str, Any]]:
    people = [*people_to_identify(n_draws), *object2vec_with_earlier(n_draws)]
    for who, (data, n, draw, X, y, new, truth, *earlier) in enumerate(people):
        encoders = dict(ENCODERS)
        for prior in earlier:
            encoders["in-context, earlier people"] = partial(InContextEncoder, prior=prior)
        for name, make in encoders.items():
            pool = {} if name == "ridge" else {"X_pool": np.concatenate([X, new])}
            encoder = make().fit(X, y, **pool)
            varying = np.ptp(y, axis=0) > 0
            noise = context_noise(encoder, X, y)
            row = {"data": data, "images": n, "draw": draw, "who": who, "encoder": name, "candidates": len(new)}
            row["EV"] = np.nanmean(explained_variance(truth[:, varying], encoder.predict(new)[:, varying]))
            for ranking in ("independent", "shared", "correlation"):
                found = identify(encoder, truth, new, noise=noise, ranking=ranking, voxels=varying)
                row[ranking] = np.mean(found.ranks == 1)
            own = identify(encoder, truth, new, spread="candidate", voxels=varying)
            row["independent, own deviations"] = np.mean(own.ranks == 1)
            yield row


def agreement(rows: pd.DataFrame) -> str:
    """How often the better of two encoders of one person identifies better, ties half."""
    hits = []
    for _, part in rows.groupby("who"):
        ev, top = part["EV"].to_numpy(), part["independent"].to_numpy()
        for i, j in combinations(range(len(part)), 2):
            hits.append(0.5 * (1 + np.sign(ev[i] - ev[j]) * np.sign(top[i] - top[j])))
    return (
        f"of {len(hits)} pairs of encoders of one person, the one with more EV identifies better in {np.mean(hits):.2f}"
    )


def decoded(n_draws: int) -> Iterator[dict[str, Any]]:
    """Posterior over features along the axes of the pool: share of the truth within 95 % intervals."""
    for data, n, _, X, y, new, truth, *_ in people_to_identify(n_draws):
        encoder = BayesianRidgeEncoder().fit(X, y, X_pool=np.concatenate([X, new]))
        varying, noise = np.ptp(y, axis=0) > 0, context_noise(encoder, X, y)
        prior = FeaturePrior.of(np.concatenate([X, new]))
        axes = prior.factor / np.linalg.norm(prior.factor, axis=0)
        for name, options in (
            ("independent", {}), ("noise says how sure", {"noise": noise}), ("weighed", {"noise": noise, "weigh": True})
        ):  # fmt: skip
            found = feature_posterior(encoder, truth, prior, voxels=varying, **options)
            error = new - found.mean
            z = (error @ axes) / np.linalg.norm(axes.T @ found.factor, axis=1)
            unit = [
                part / np.linalg.norm(part, axis=1)[:, None] for part in (found.mean - prior.mean, new - prior.mean)
            ]
            yield {
                "data": data,
                "encoder": name,
                "images": n,
                "in 95 % intervals": np.mean(np.abs(z) < 1.96),
                "error, share of prior": np.square(error).sum() / np.square(new - prior.mean).sum(),
                "settled": found.settled,
                "seen is nearest": np.mean((unit[0] @ unit[1].T).argmax(axis=1) == np.arange(len(new))),
            }


def memory(n_draws: int) -> Iterator[dict[str, Any]]:
    """Object2vec: each person from the three others, all fitted on 60 categories and scored on the 21 left."""
    alexnet, people, _ = load_object2vec("alexnet20")
    pool = {"AlexNet": alexnet, "word2vec": load_object2vec("word2vec30")[0]}
    for draw in range(n_draws):
        order = np.random.default_rng(draw).permutation(81)
        seen, left = ({name: part[rows] for name, part in pool.items()} for rows in (order[:60], order[60:]))
        earlier = [BandedRidgeEncoder(partition=False).fit(seen, y[order[:60]], X_pool=pool) for y in people]
        for who, y in enumerate(people):
            prior = GroupPrior.fit([fit for other, fit in enumerate(earlier) if other != who])
            for n in (10, 20, 40, 60):
                X = {name: part[:n] for name, part in seen.items()}
                row: dict[str, Any] = {"data": "object2vec", "images": n, "draw": draw}
                encoders = {
                    "banded ridge": BandedRidgeEncoder(partition=False),
                    "with earlier people": BandedRidgeEncoder(partition=False, prior=prior),
                }
                for name, encoder in encoders.items():
                    encoder.fit(X, y[order[:n]], X_pool=pool)
                    row[name] = explained_variance(y[order[60:]], encoder.predict(left)).mean()
                one = GroupPriorEncoder(prior).fit(joined(X), y[order[:n]], joined(pool))
                row["memory of voxels, as one space"] = explained_variance(
                    y[order[60:]], one.predict(joined(left))
                ).mean()
                yield row


def cost(_: int) -> Iterator[dict[str, Any]]:
    """Seconds and MB of arrays at 20,000 voxels; of himalaya's random search one draw, where 100 are usual."""
    for n_images in (100, 1000):
        X, y, new, _, _ = draw_voxels(np.random.default_rng(0), n_images, (50, 400), 20_000)
        runs: dict[str, Callable[[], Any]] = {
            "banded ridge": partial(BandedRidgeEncoder(partition=False).fit, X, y),
            "himalaya, kernels, one draw": partial(himalaya, X, y, new, 1),
            "himalaya, group ridge, one draw": partial(himalaya_group_ridge, X, y, 1),
        }
        for name, call in runs.items():
            seconds, megabytes = measure(call)
            data = f"20,000 voxels x {n_images} images, two spaces"
            yield {"data": data, "encoder": name, "seconds": seconds, "MB": megabytes}
    rng = np.random.default_rng(0)
    y = rng.standard_normal((100, 20_000))
    seconds, megabytes = measure(lambda: permutation_test(y, y[::-1], 1000))
    yield {
        "data": "1,000 permutations, 20,000 voxels x 100 images",
        "encoder": "",
        "seconds": seconds,
        "MB": megabytes,
    }


def measure(call: Callable[[], Any]) -> tuple[float, float]:
    """Processor seconds, and peak of what NumPy holds."""
    tracemalloc.start()
    start = time.process_time()
    call()
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak / 1e6


def people_to_identify(n_draws: int) -> Iterator[tuple[Any, ...]]:
    alexnet, people, _ = load_object2vec("alexnet20")
    actions, _ = load_actions()
    memories = [
        GroupPrior.fit([(a.features[1], a.responses[1]) for a in actions if a is not who]) for who in actions[:3]
    ]
    world = simulate_people(1, n_own=100, n_shared=100, n_features=64, voxel_size_mm=8, shared_repeats=1)
    person = world.people[0].subject()
    own = [name for name in person.image_ids.tolist() if name not in set(world.shared.tolist())]
    for draw in range(n_draws):
        rng = np.random.default_rng(draw)
        order, clips, drawn = rng.permutation(81), rng.permutation(60), rng.permutation(own)
        for n in (10, 20, 40):
            for y in people:
                yield "object2vec, AlexNet", n, draw, alexnet[order[:n]], y[order[:n]], alexnet[order[n:]], y[order[n:]]
            for who, prior in zip(actions, memories, strict=False):
                first = clips[:n]
                X, y = who.features[1][first], who.responses[1][first]
                yield "actions, session 2", n, draw, X, y, who.features[2], who.responses[2], prior
        for n in (10, 20, 40, 100):
            seen, new = (person.select_images(names) for names in (drawn[:n], world.shared))
            X, Q = (world.features_of(part.image_ids).astype(float) for part in (seen, new))
            yield "SIMULATION", n, draw, X, seen.responses.astype(float), Q, new.responses.astype(float)


def object2vec_with_earlier(n_draws: int) -> Iterator[tuple[Any, ...]]:
    """People and a memory of the others, whose fits have seen none of the 21 candidates."""
    alexnet, people, _ = load_object2vec("alexnet20")
    for draw in range(n_draws):
        order = np.random.default_rng(draw).permutation(81)
        seen, left = order[:60], order[60:]
        for who, y in enumerate(people):
            prior = GroupPrior.fit([(alexnet[seen], other[seen]) for k, other in enumerate(people) if k != who])
            for n in (10, 20, 40):
                data = "object2vec, 21 candidates"
                yield data, n, draw, alexnet[order[:n]], y[order[:n]], alexnet[left], y[left], prior


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    keys = ["data", "images", "encoder", "part"]
    runs = {
        "spaces": [spaces],
        "significance": [significance, cover],
        "identify": [identified],
        "decode": [decoded],
        "memory": [memory],
        "cost": [cost],
    }
    parser.add_argument("what", choices=tuple(runs))
    parser.add_argument("--draws", type=int, default=2)
    options = parser.parse_args()
    for run in runs[options.what]:
        table = pd.DataFrame(run(options.draws))
        groups = [key for key in keys if key in table]
        means = table.drop(columns=["draw", "who"], errors="ignore").groupby(groups, sort=False).mean()
        print(means.round(3).to_string(), "\n")
        if run is identified:
            print(agreement(table))


if __name__ == "__main__":
    main()
