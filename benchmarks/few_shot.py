"""Few-shot accuracy of every encoder on real voxels, each person left out in turn: EV, the spread over context draws.

    uv run python benchmarks/few_shot.py run scores.jsonl [--data …] [--draws 10] [--variants]
    uv run python benchmarks/few_shot.py table landed.jsonl scores.jsonl

`few_shot_landed.py` scores version 0.1.0 on the same splits. With `--variants`, the parts of the model are left out, or
its constants changed, one at a time. What is scored already is not scored again.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from few_shot_cases import DATA_SETS, LENGTHS, Case, cases

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, RidgeEncoder
from braincorl.encoders.by_attention import fit_by_attention
from braincorl.metrics import explained_variance
from braincorl.models.attention import LAYERS, AttentionConfig

Make = Callable[[], Any]
CONFIG = AttentionConfig()
VARIANTS: dict[str, AttentionConfig] = {
    "evidence at its word (temperature 1)": replace(CONFIG, temperature=1.0),
    "as it is": CONFIG,
    "signal flat": replace(CONFIG, rarity=0.0),
    "temperature .25": replace(CONFIG, temperature=0.25),
    "temperature .125": replace(CONFIG, temperature=0.125),
    "one residual metric": replace(CONFIG, metrics=(CONFIG.attended_metric,)),
    "isotropic residual metric": replace(CONFIG, metrics=(1.0,), attended_metric=1.0),
    "one likeness, .75": replace(CONFIG, likenesses=(0.75,)),
    "no attending heads": replace(CONFIG, likenesses=()),
    "more likenesses": replace(CONFIG, likenesses=(0.5, 0.75, 0.9, 0.95)),
    "one share of signal, .25": replace(CONFIG, attended_signals=(0.25,)),
    "three shares of signal": replace(CONFIG, attended_signals=(0.1, 0.25, 0.5)),
    "two likenesses": replace(CONFIG, likenesses=(0.6, 0.85)),
    "regions elsewhere e^-2": replace(CONFIG, elsewhere=-2.0),
    "regions elsewhere e^-8": replace(CONFIG, elsewhere=-8.0),
    **{f"layer: {name}": replace(CONFIG, layers=(name,)) for name in LAYERS},
    **{f"layers without {name}": replace(CONFIG, layers=tuple(n for n in LAYERS if n != name)) for name in LAYERS},
}


def main() -> None:
    """Score, or print what was scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("run", "table"))
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--data", nargs="+", default=list(DATA_SETS), choices=DATA_SETS)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--methods", nargs="+", help="of these names alone")
    options = parser.parse_args()
    if options.action == "table":
        print_tables(options.files, options.draws)
        return
    (output,) = options.files
    lines = output.read_text().splitlines() if output.exists() else []
    done = {tuple(json.loads(line)["case"]) for line in lines}
    for data in options.data:
        priors: dict[Any, tuple[GroupPrior, GroupPrior]] = {}
        for case in cases(data, range(options.draws)):
            if case.key in done:
                continue
            if case.others.key not in priors:
                priors = {case.others.key: _remember(case)}
            methods = _variants if options.variants else _methods
            named = methods(case, *priors[case.others.key])
            scores = {name: _score(case, make()) for name, make in named if name in (options.methods or dict(named))}
            with output.open("a") as file:
                file.write(json.dumps({"case": case.key, "ev": scores}) + "\n")


def _remember(case: Case) -> tuple[GroupPrior, GroupPrior]:
    """Give memories without anatomy, and with regions or places."""
    o = case.others
    if o.positions is not None:
        return GroupPrior.fit(o.people, X_pool=o.pool), GroupPrior.fit(o.people, positions=o.positions, X_pool=o.pool)
    return GroupPrior.fit(o.people, X_pool=o.pool), GroupPrior.fit(o.people, o.rois, X_pool=o.pool)


def _methods(case: Case, prior: GroupPrior, anatomical: GroupPrior) -> list[tuple[str, Make]]:
    X, y, pool = case.X, case.y, case.pool
    where = _anatomy(case)
    return [
        ("ridge", lambda: RidgeEncoder().fit(X, y)),
        ("Bayesian ridge", lambda: BayesianRidgeEncoder().fit(X, y, X_pool=pool)),
        ("in-context", lambda: InContextEncoder(device="cpu").fit(X, y, X_pool=pool)),
        ("group prior", lambda: GroupPriorEncoder(prior, device="cpu").fit(X, y)),
        ("group prior, anatomy", lambda: GroupPriorEncoder(anatomical, device="cpu").fit(X, y, **where)),
    ]


def _variants(case: Case, prior: GroupPrior, anatomical: GroupPrior) -> list[tuple[str, Make]]:
    made: list[tuple[str, Make]] = []
    for name, config in VARIANTS.items():
        layered, where = "layer" in name, _anatomy(case)
        if not layered:  # where voxels are remembered the further layers have no part
            made.append((f"memory | {name}", lambda c=config: _by_attention(case, prior, c, {})))
            made.append((f"anatomy | {name}", lambda c=config, w=where: _by_attention(case, anatomical, c, w)))
        if layered or "temperature" in name or name == "as it is":
            made.append((f"no memory | {name}", lambda c=config: _alone(case, c)))
    return made


def _alone(case: Case, config: AttentionConfig) -> Any:
    scale = 1.0 / float(np.trace(np.cov(case.pool, rowvar=False)))
    return fit_by_attention(config, case.X, case.y, scale)


def _by_attention(case: Case, prior: GroupPrior, config: AttentionConfig, where: dict[str, Any]) -> Any:
    n = case.y.shape[1]
    return fit_by_attention(
        config,
        case.X,
        case.y,
        prior.scale,
        prior.items(),
        prior.pool_covariance,
        region=prior.region_index(where.get("rois"), n),
        nearby=prior.nearby(where.get("positions"), n),
    )


def _anatomy(case: Case) -> dict[str, Any]:
    return {"rois": case.rois} if case.positions is None else {"positions": case.positions}


def _score(case: Case, fitted: Any) -> float:
    coef, intercept = (fitted.coef_, fitted.intercept_) if hasattr(fitted, "coef_") else (fitted.coef, fitted.intercept)
    predicted = case.X_test @ coef.T + intercept
    return float(np.nanmean(explained_variance(case.y_test[:, case.keep], predicted[:, case.keep])))


def print_tables(files: Sequence[Path], n_draws: int) -> None:
    """Print a table for each data set: means over people and draws ± the spread over draws of the mean over people."""
    scores: dict[tuple[str, str, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        for line in path.read_text().splitlines():
            found = json.loads(line)
            data, _, n, draw = found["case"]
            if draw < n_draws:
                for name, value in found["ev"].items():
                    scores[data, name, n][draw].append(value)
    for data in DATA_SETS:
        names = list(dict.fromkeys(name for d, name, _ in scores if d == data))
        if not names:
            continue
        print(f"\n{data}, EV ± spread over draws\n| | " + " | ".join(map(str, LENGTHS[data])) + " | mean |")
        print("|---" * (len(LENGTHS[data]) + 2) + "|")
        for name in names:
            draws = [np.array([np.mean(v) for v in scores[data, name, n].values()]) for n in LENGTHS[data]]
            cells = [f"{d.mean():.3f} ± {d.std():.3f}" if d.size else "" for d in draws]
            mean = np.mean([d.mean() for d in draws if d.size])
            print(f"| {name} | " + " | ".join(cells) + f" | {mean:.4f} |")


if __name__ == "__main__":
    main()
