"""The encoders of version 0.1.0 (commit 638674b) on the splits of `few_shot_cases.py`.

git worktree add ../landed 638674b
PYTHONPATH=../landed uv run python benchmarks/few_shot_landed.py landed.jsonl
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from few_shot_cases import DATA_SETS, Case, cases

import braincorl
from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, RidgeEncoder
from braincorl.metrics import explained_variance


def main() -> None:
    """Score every encoder on every case and append a line each; what the file holds already is not done again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", nargs="+", default=list(DATA_SETS), choices=DATA_SETS)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    done = set()
    if options.output.exists():
        done = {tuple(json.loads(line)["case"]) for line in options.output.read_text().splitlines()}
    print(f"braincorl of {Path(braincorl.__file__).parent}", flush=True)
    with TemporaryDirectory() as folder:
        even = _even_mean(Path(folder))
        for data in options.data:
            priors: dict[Any, tuple[GroupPrior, GroupPrior]] = {}
            for case in cases(data, range(options.draws)):
                if case.key in done:
                    continue
                if case.others.key not in priors:
                    priors = {case.others.key: _learn(case)}
                scores = {name: _score(case, *make()) for name, make in _methods(case, *priors[case.others.key], even)}
                with options.output.open("a") as file:
                    file.write(json.dumps({"case": case.key, "ev": scores}) + "\n")


def _learn(case: Case) -> tuple[GroupPrior, GroupPrior]:
    o = case.others
    return GroupPrior.fit(o.people, X_pool=o.pool), GroupPrior.fit(o.people, o.rois, X_pool=o.pool)


def _methods(
    case: Case, prior: GroupPrior, regional: GroupPrior, even: Path
) -> list[tuple[str, Callable[[], tuple[Any, dict[str, Any]]]]]:
    pool = {"X_pool": case.pool}
    return [
        ("ridge", lambda: (RidgeEncoder(), {})),
        ("Bayesian ridge", lambda: (BayesianRidgeEncoder(), pool)),
        ("even mean of smoothers", lambda: (InContextEncoder(even), pool)),
        ("landed network", lambda: (InContextEncoder(), pool)),
        ("landed group prior", lambda: (GroupPriorEncoder(prior), {})),
        ("landed network with it", lambda: (InContextEncoder(prior=prior), {})),
        ("landed group prior, anatomy", lambda: (GroupPriorEncoder(regional), {"rois": case.rois})),
        ("landed network with it, anatomy", lambda: (InContextEncoder(prior=regional), {"rois": case.rois})),
    ]


def _score(case: Case, encoder: Any, more: dict[str, Any]) -> float:
    predicted = encoder.fit(case.X, case.y, **more).predict(case.X_test)
    return float(np.nanmean(explained_variance(case.y_test[:, case.keep], predicted[:, case.keep])))


def _even_mean(folder: Path) -> Path:
    """Write a network that is the even mean of smoothers 0 to 3, times .9, and nothing else."""
    from braincorl.checkpoint import read_checkpoint, save_checkpoint
    from braincorl.models import NativeTransformer, native

    network, header = read_checkpoint("default")
    other = NativeTransformer(replace(network.config, insurance=1.0))
    other.load_state_dict(network.state_dict())
    path = folder / "even.safetensors"
    save_checkpoint(path, other, {"training": header.get("training")})
    plain_forward = NativeTransformer.forward

    def forward(self: NativeTransformer, *arguments: Any) -> Any:
        native.ANCHOR = (0.225,) * 4 + (0.0,) if self.config.insurance == 1 else (0.36, 0.18, 0.18, 0.18, 0.0)
        return plain_forward(self, *arguments)

    NativeTransformer.forward = forward
    return path


if __name__ == "__main__":
    main()
