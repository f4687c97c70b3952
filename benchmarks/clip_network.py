"""A network specialised to CLIP ViT-B/32: trained on synthetic people who see photographs, judged on other images.

    uv run python benchmarks/clip_network.py prepare FOLDER
    uv run braincorl train FOLDER/photos.toml; likewise control.toml, others.toml
    uv run python benchmarks/clip_network.py compare FOLDER

`prepare` splits the real features and puts the recipes of encoders/native-2026-11/ablations/clip beside them:
photos.npz holds 2,000 photographs (Unsplash), others.npz the 1,000 images of two other sources (CIFAR-10 and the one
called lee). `compare` tests on the photographs that are left, on CIFAR-10 and on lee, each network only on sources or
photographs that it has not seen. Near copies of a photograph are left out. SIMULATION: voxels respond along directions
of CLIP's words, or mixtures of twelve of them.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import mean_ev, print_table, real_data

from braincorl import BayesianRidgeEncoder, InContextEncoder, RidgeEncoder
from braincorl.features import FeatureTable, save_features

Array = npt.NDArray[Any]

RECIPES = Path(__file__).resolve().parent.parent / "encoders/native-2026-11/ablations/clip"
COUNTS = (10, 20, 50, 100)
N_VOXELS, N_TEST = 300, 250
TRAINED = {"control": "synthetic features", "photos": "photographs", "others": "CIFAR-10 and lee"}
WORLDS = [(mixed, shared) for mixed in (False, True) for shared in (False, True)]


def main() -> None:
    """Prepare or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("prepare", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    if options.what == "prepare":
        prepare(options.folder)
    else:
        compare(options.folder, options.draws)


def split() -> dict[str, Array]:
    """Give features by source: photographs to learn from, photographs left, CIFAR-10, and lee."""
    with np.load(real_data() / "clip_vitb32" / "images.npz") as file:
        X, source = file["embeddings"].astype(np.float32), file["source"]
    photos = X[source == "unsplash"]
    similarity, kept = photos @ photos.T, [0]
    for row in range(1, len(photos)):
        if similarity[row, kept].max() < 0.99:
            kept.append(row)
    photos = photos[np.random.default_rng(0).permutation(kept)]
    return {
        "learned": photos[:2000],
        "photographs left": photos[2000:],
        "CIFAR-10": X[source == "cifar10"],
        "lee": X[source == "lee"],
    }


def prepare(folder: Path) -> None:
    """Write feature files and recipes."""
    folder.mkdir(parents=True, exist_ok=True)
    images = split()
    for name, X in {"photos": images["learned"], "others": np.vstack([images["lee"], images["CIFAR-10"]])}.items():
        save_features(folder / f"{name}.npz", FeatureTable(X, np.array([f"{name}-{i}" for i in range(len(X))])))
    for path in RECIPES.glob("*.toml"):
        shutil.copy(path, folder)


def draw_voxels(X: Array, mixed: bool, shared: bool, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw responses to all images, with noise and without (n, V)."""
    with np.load(real_data() / "clip_vitb32" / "text_lvis.npz") as file:
        texts = file["embeddings"].astype(np.float32)
    words = texts - texts.mean(axis=0)
    chosen = rng.permutation(len(words))[:N_VOXELS]
    weights = rng.dirichlet(np.full(12, 0.4), N_VOXELS) @ words[chosen[:12]] if mixed else words[chosen]
    signal = X @ weights.T
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    noise = rng.standard_normal(signal.shape)
    if shared:
        patterns = rng.standard_normal((15, N_VOXELS)) / np.sqrt(15)
        noise = np.sqrt(0.5) * (noise + rng.standard_normal((len(X), 15)) @ patterns)
    ceiling = rng.uniform(0.05, 0.7, N_VOXELS)
    clean = np.sqrt(ceiling) * signal
    return clean + np.sqrt(1 - ceiling) * noise, clean


def compare(folder: Path, n_draws: int) -> None:
    """Print noise-free EV, and every network's gain over the default one."""
    images = split()
    print(f"SIMULATION on real CLIP ViT-B/32 features: {N_VOXELS} voxels, ceilings .05 to .7; noise-free EV,")
    print(
        f"mean over four worlds (own words or mixtures of twelve; independent or half shared noise); {n_draws} draws:\n"
    )
    rows, gains = [], []
    for name in ("photographs left", "CIFAR-10", "lee"):
        known = [key for key in TRAINED if key != "others" or name == "photographs left"]
        found = _scores(images[name], {key: folder / key / "checkpoint.safetensors" for key in known}, n_draws)
        for encoder, scores in found.items():  # scores (draws, worlds, counts)
            by_draw = scores.mean(axis=1)
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(by_draw.mean(axis=0), by_draw.std(axis=0), strict=True)]
            rows.append([name, encoder, *cells])
            ratio = 100 * (scores.mean(axis=2) / found["default"].mean(axis=2) - 1)  # (draws, worlds)
            cells = [f"{m:+.1f} ± {s:.1f} %" for m, s in zip(ratio.mean(axis=0), ratio.std(axis=0), strict=True)]
            gains.append([name, encoder, *cells, f"{ratio.mean():+.1f} ± {ratio.mean(axis=1).std():.1f} %"])
    print_table(["images", "encoder", *map(str, COUNTS)], rows)
    print("Mean over 10 to 100 images, against the default network of the same draw:\n")
    kinds = [
        f"{'mixtures' if mixed else 'own word'}, {'shared' if shared else 'independent'}" for mixed, shared in WORLDS
    ]
    print_table(["images", "encoder", *kinds, "all"], gains)


def _scores(X: Array, checkpoints: dict[str, Path], n_draws: int) -> dict[str, Array]:
    """EV of every encoder (draws, worlds, counts)."""
    encoders: dict[str, Any] = {
        "ridge": RidgeEncoder(),
        "Bayesian ridge": BayesianRidgeEncoder(),
        "default": InContextEncoder(),
    }
    encoders |= {f"trained on {TRAINED[key]}": InContextEncoder(path) for key, path in checkpoints.items()}
    scores = {name: np.empty((n_draws, len(WORLDS), len(COUNTS))) for name in encoders}
    for draw in range(n_draws):
        for world, (mixed, shared) in enumerate(WORLDS):
            rng = np.random.default_rng([draw, world, 11])
            y, clean = draw_voxels(X, mixed, shared, rng)
            order = rng.permutation(len(X))
            test = order[-N_TEST:]
            for column, n in enumerate(COUNTS):
                for name, encoder in encoders.items():
                    more = {"X_pool": X} if encoder.uses_pool else {}
                    predicted = encoder.fit(X[order[:n]], y[order[:n]], **more).predict(X[test])
                    scores[name][draw, world, column] = mean_ev(clean[test], predicted)
    return scores


if __name__ == "__main__":
    main()
