"""The native in-context network beside ridge and the closed forms.

    uv run python benchmarks/in_context.py TABLE…

Real people are in `group_prior.py {actions,object2vec,bold5000}`: their tables hold the network too.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import mean_ev, measure, print_table
from real_people import draw_noise, load_bold5000, load_object2vec
from known_worlds import simulated
from scipy.stats import norm

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, RidgeEncoder

Array = npt.NDArray[Any]


def main() -> None:
    """Run the named tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=tuple(TABLES))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--checkpoints", type=Path, nargs="*", default=[], help="for the table ablation")
    options = parser.parse_args()
    for name in options.tables:
        start = time.perf_counter()
        TABLES[name](options)
        print(f"({name}: {time.perf_counter() - start:.0f} s)\n")


def length(options: argparse.Namespace) -> None:
    """Longer contexts than training had (400 images)."""
    X, people = load_bold5000()
    counts = (50, 100, 200, 400, 800)
    rows: dict[str, dict[int, list[float]]] = {}
    for draw in range(options.draws):
        person = people[draw % 2]
        rng = np.random.default_rng([draw, 3])
        chosen = rng.permutation(len(person.coef))[:500]
        truth = X @ person.coef[chosen].T
        truth = (truth - truth.mean(axis=0)) / truth.std(axis=0)
        order = rng.permutation(len(X))
        ceiling = rng.uniform(0.05, 0.7, truth.shape[1])
        y = np.sqrt(ceiling) * truth + np.sqrt(1 - ceiling) * rng.standard_normal(truth.shape)
        for n in counts:
            for name, encoder, more in _plain(X):
                predicted = encoder.fit(X[order[:n]], y[order[:n]], **more).predict(X[order[800:]])
                rows.setdefault(name, {}).setdefault(n, []).append(
                    mean_ev(np.sqrt(ceiling) * truth[order[800:]], predicted)
                )
    print("bold5000_resnet18, real weights, SIMULATED independent noise; noise-free EV; training ended at 400 images:")
    print_table(["encoder", *map(str, counts)], _cells(rows, counts))


def outlier(options: argparse.Namespace) -> None:
    """One corrupted trial in 20: loss of EV."""
    X, responses, _ = load_object2vec("alexnet20")
    rows: dict[str, dict[int, list[float]]] = {}
    for draw in range(options.draws):
        order = np.random.default_rng([draw, 7]).permutation(81)
        test, train = order[:41], order[41:]
        for person in range(4):
            for n in (20, 40):
                rng = np.random.default_rng([draw, person, n])
                good = responses[person][train[:n]]
                bad = good.copy()
                for image in rng.permutation(n)[: n // 20]:
                    shared = rng.standard_normal(15) @ rng.standard_normal((15, good.shape[1])) / np.sqrt(15)
                    bad[image] += 4 * good.std(axis=0) * shared
                for state, y in (("as measured", good), ("1 in 20 spoilt", bad)):
                    for name, encoder, more in _plain(X):
                        ev = mean_ev(responses[person][test], encoder.fit(X[train[:n]], y, **more).predict(X[test]))
                        rows.setdefault(f"{name}, {state}", {}).setdefault(n, []).append(ev)
    print("object2vec, alexnet20, real responses; spoilt: 4 sd of noise that voxels share, in one trial of 20:")
    print_table(["encoder", "20", "40"], _cells(rows, (20, 40)))


def calibration(options: argparse.Namespace) -> None:
    """Share of left-out real responses inside predictive intervals."""
    inside: dict[tuple[str, str, int], list[list[float]]] = {}
    for features in ("alexnet20", "word2vec30"):
        X, responses, _ = load_object2vec(features)
        for draw in range(options.draws):
            order = np.random.default_rng([draw, 7]).permutation(81)
            test, train = order[:41], order[41:]
            for person in range(4):
                for n in (10, 20, 40):
                    for name, encoder in {
                        "Bayesian ridge": BayesianRidgeEncoder(),
                        "in-context": InContextEncoder(),
                    }.items():
                        encoder.fit(X[train[:n]], responses[person][train[:n]], X_pool=X)
                        predicted, std = encoder.predict(X[test], return_std=True)
                        z = np.abs(responses[person][test] - predicted) / std
                        shares = [float((z < norm.ppf(0.5 + p / 2)).mean()) for p in (0.5, 0.8, 0.95)]
                        inside.setdefault((features, name, n), []).append(shares)
    print("object2vec, real responses to 41 categories outside the context, share inside the intervals:")
    rows = [[*map(str, key), *(f"{share:.3f}" for share in np.mean(v, axis=0))] for key, v in inside.items()]
    print_table(["features", "encoder", "images", "50 %", "80 %", "95 %"], rows)


def cost(_: argparse.Namespace) -> None:
    """Seconds, memory and operations beside himalaya."""
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV
    from torch.utils.flop_counter import FlopCounterMode

    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 512)).astype("f4")
    y = (X @ rng.standard_normal((512, 20_000)) / 23 + 1.5 * rng.standard_normal((100, 20_000))).astype("f4")
    set_backend("numpy")
    alphas = np.logspace(-1, 6, 22) * 512
    runs = {
        "himalaya KernelRidgeCV, 22 alphas, 5 folds": lambda: (
            KernelRidgeCV(alphas=alphas, cv=5).fit(X, y).get_primal_coef(X.T)
        ),
        "BayesianRidgeEncoder": lambda: BayesianRidgeEncoder().fit(X, y),
        "InContextEncoder": lambda: InContextEncoder(device="cpu").fit(X, y),
    }
    measured = {name: measure(run, repeats=3) for name, run in runs.items()}
    base = next(iter(measured.values()))
    with FlopCounterMode(display=False) as counter:
        runs["InContextEncoder"]()
    print(f"SIMULATION: 20,000 voxels x 100 images x 512 features, float32, {torch.get_num_threads()} threads;")
    print(f"products of the network and its smoothers: {counter.get_total_flops() / 20_000 / 1e6:.2f} MFLOP a voxel")
    rows = [[name, f"{s:.2f}", f"{m:.0f}", f"{s / base[0]:.2f}"] for name, (s, m) in measured.items()]
    print_table(["encoder", "seconds", "peak MiB", "time ratio"], rows)


def ablation(options: argparse.Namespace) -> None:
    """Networks of other recipes on real people, as EV over that of Bayesian ridge."""
    networks: list[tuple[str, Any]] = [
        ("default", "default"),
        *((path.parent.name, path) for path in options.checkpoints),
    ]
    rows = []
    for features in ("alexnet20", "word2vec30"):
        X, responses, _ = load_object2vec(features)
        rows += [[features, *row] for row in _gains(networks, _object2vec(X, responses, options.draws))]
    rows += [["bold5000, person 2, shared noise", *row] for row in _gains(networks, _bold(max(2, options.draws // 2)))]
    print("EV of the in-context encoder over that of Bayesian ridge, mean over 10 to 40 (bold5000: 100) images:")
    print_table(["data", "network", "insurance", "gain"], rows)


def person(options: argparse.Namespace) -> None:
    """Networks trained on one person's voxels, tested on another's; `subject1.safetensors` is written for the recipes.

    The recipes are encoders/native-2026-11/ablations/{person,published-person}.toml; copy the prior beside them, train,
    and pass the checkpoints: the native one first, then the published one.
    """
    X, (first, _) = load_bold5000()
    path = Path("subject1.safetensors")
    if not path.exists():
        teacher = type("Teacher", (), {"coef_": first.coef})()
        GroupPrior.fit([teacher], X_pool=X).save(path)
    prior = GroupPrior.load(path)
    components = (X - X.mean(axis=0)) @ np.linalg.eigh(prior.pool_covariance)[1][:, ::-1]
    components /= np.linalg.norm(components, axis=1, keepdims=True)
    runs: list[tuple[str, Any, Array, dict[str, Any]]] = [
        ("Bayesian ridge", BayesianRidgeEncoder(), X, {"X_pool": X}),
        ("mixture prior", GroupPriorEncoder(prior), X, {}),
        ("in-context with it", InContextEncoder(prior=prior), X, {}),
    ]
    for name, checkpoint, features in zip(("native", "published"), options.checkpoints, (X, components), strict=False):
        runs.append((f"{name}, trained on person 1", InContextEncoder(checkpoint), features, {}))
    rows: dict[str, dict[int, list[float]]] = {}
    for draw in range(options.draws):
        order, y, clean = _second_person(draw, 400)
        for n in (10, 20, 50, 100):
            for name, encoder, features, more in runs:
                predicted = encoder.fit(features[order[:n]], y[order[:n]], **more).predict(features[order[600:]])
                rows.setdefault(name, {}).setdefault(n, []).append(mean_ev(clean[order[600:]], predicted))
    print("bold5000_resnet18, person 2, SIMULATED noise shared by neighbours; noise-free EV:")
    print_table(["encoder", "10", "20", "50", "100"], _cells(rows, (10, 20, 50, 100)))


Case = tuple[Array, Array, Array, Array, Array, int]  # X, y, X_test, y_test, pool, n


def _gains(networks: Sequence[tuple[str, Any]], cases: Sequence[Case]) -> list[list[str]]:
    rows = []
    base: dict[int, list[float]] = {}
    for X, y, X_test, y_test, pool, n in cases:
        base.setdefault(n, []).append(mean_ev(y_test, BayesianRidgeEncoder().fit(X, y, X_pool=pool).predict(X_test)))
    reference = np.mean([np.mean(v) for v in base.values()])
    for name, checkpoint in networks:
        for insurance in (0.0, 0.5):
            found: dict[int, list[float]] = {}
            for X, y, X_test, y_test, pool, n in cases:
                ev = mean_ev(y_test, _insured(checkpoint, insurance).fit(X, y, X_pool=pool).predict(X_test))
                found.setdefault(n, []).append(ev)
            gain = np.mean([np.mean(v) for v in found.values()]) / reference - 1
            rows.append([name, f"{insurance:g}", f"{100 * gain:+.1f} %"])
    return rows


def _insured(checkpoint: Any, insurance: float) -> InContextEncoder:
    """Give the encoder of a checkpoint with another insurance, through a file of its own."""
    import tempfile
    from dataclasses import replace

    from braincorl.checkpoint import read_checkpoint, save_checkpoint
    from braincorl.models import NativeTransformer

    network, header = read_checkpoint(checkpoint)
    other = NativeTransformer(replace(network.config, insurance=insurance))
    other.load_state_dict(network.state_dict())
    path = Path(tempfile.gettempdir()) / f"insured-{insurance:g}.safetensors"
    save_checkpoint(path, other, {"training": header.get("training")})
    return InContextEncoder(path)


def _object2vec(X: Array, responses: Sequence[Array], n_draws: int) -> list[Case]:
    cases = []
    for draw in range(n_draws):
        order = np.random.default_rng([draw, 7]).permutation(81)
        test, train = order[:41], order[41:]
        for y in responses:
            cases += [(X[train[:n]], y[train[:n]], X[test], y[test], X, n) for n in (10, 20, 40)]
    return cases


def _bold(n_draws: int) -> list[Case]:
    X, _ = load_bold5000()
    cases = []
    for draw in range(n_draws):
        order, y, clean = _second_person(draw, 1000)
        test = order[600:]
        cases += [(X[order[:n]], y[order[:n]], X[test], clean[test], X, n) for n in (10, 20, 50, 100)]
    return cases


def _second_person(draw: int, n_voxels: int) -> tuple[Array, Array, Array]:
    """Draw voxels of BOLD5000's second person, half of the noise shared: order of images, responses, without noise."""
    X, (_, second) = load_bold5000()
    rng = np.random.default_rng([draw, 5])
    chosen = np.sort(rng.permutation(len(second.coef))[:n_voxels])
    truth = X @ second.coef[chosen].T
    truth = (truth - truth.mean(axis=0)) / truth.std(axis=0)
    order = rng.permutation(len(X))
    ceiling = rng.uniform(0.05, 0.7, truth.shape[1])
    noise = draw_noise(rng, len(X), second.positions[chosen], True)
    clean = np.sqrt(ceiling) * truth
    return order, clean + np.sqrt(1 - ceiling) * noise, clean


def _plain(pool: Array) -> list[tuple[str, Any, dict[str, Any]]]:
    return [
        ("ridge", RidgeEncoder(), {}),
        ("Bayesian ridge", BayesianRidgeEncoder(), {"X_pool": pool}),
        ("in-context", InContextEncoder(), {"X_pool": pool}),
    ]


def _cells(rows: dict[str, dict[int, list[float]]], counts: Sequence[int]) -> list[list[str]]:
    return [
        [name, *(f"{np.mean(values[n]):.3f} ± {np.std(values[n]):.3f}" for n in counts)]
        for name, values in rows.items()
    ]


TABLES: dict[str, Callable[[argparse.Namespace], None]] = {
    "simulated": simulated,
    "length": length,
    "outlier": outlier,
    "calibration": calibration,
    "cost": cost,
    "ablation": ablation,
    "person": person,
}

if __name__ == "__main__":
    main()
