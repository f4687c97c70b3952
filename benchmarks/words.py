"""Do words find the voxels that respond to them? Two simulations with known selectivity, and four real people.

1. Simulated people (`simulate_people`): regions prefer categories, noise is shared by neighbours. The texts are made
   up: the mean of a category's images plus a gap that all texts share, as in CLIP-like spaces.
2. Voxels along words: real CLIP ViT-B/32 features of 4,156 photographs and of 1,203 words; a voxel's weights are the
   deviation of one word's embedding from the mean word's (second table: the embedding itself), its noise is independent
   over voxels and leaves ceilings of .05 to .7. Does its encoder from a few images name its word among all of them?

3. Real voxels: object2vec (Bonner & Epstein), four people, 100 voxels each of PPA (scenes) and LOC (objects), responses
   to 81 categories. Eight places and eight things that fit a hand, named before looking, are left out of every fit;
   asked is places versus things, in word2vec's components or with AlexNet's features of their images.

    uv run python benchmarks/words.py [people] [clip] [object2vec]
"""

import argparse
import logging
from functools import partial

import numpy as np
import pandas as pd
from common import print_table, real_data
from real_people import load_object2vec
from sklearn.metrics import roc_auc_score

from braincorl import (
    BayesianRidgeEncoder,
    GroupPrior,
    GroupPriorEncoder,
    InContextEncoder,
    RidgeEncoder,
    simulate_people,
)
from braincorl.analysis import localizer_accuracy, text_selectivity
from braincorl.analysis.words.pool import make_pool
from braincorl.datasets.simulation import CATEGORIES

LOCALIZERS = {"face": ["FFA"], "body": ["EBA"], "place": ["PPA", "OPA", "RSC"], "food": ["Food"], "tool": ["LOC"]}
PLACES = ("building", "cliff", "crosswalk", "house", "mountain", "road", "sea", "sidewalk")
THINGS = ("bottle", "bowl", "cup", "jar", "knife", "mug", "pen", "plate")
N_VOXELS, N_HELD_BACK = 600, 1000
NAMES = {"ridge": RidgeEncoder, "Bayesian ridge": BayesianRidgeEncoder, "in-context": InContextEncoder}


def fit(encoder, X, y, pool):
    return encoder.fit(X, y, **({"X_pool": pool} if encoder.uses_pool else {}))


def true_encoder(person):
    """Make an encoder of the weights that made a simulated person's responses."""
    encoder = RidgeEncoder().fit(np.eye(3), np.eye(3))
    encoder.coef_, encoder.intercept_ = person.true_coef, person.true_intercept
    return encoder


def score(encoder, world, person, texts, pool, truth):
    """Score a query of one encoder: localiser figures, agreement with the truth, false discoveries."""
    result = text_selectivity(encoder, texts, pool, texts=CATEGORIES)
    figures = localizer_accuracy(result, LOCALIZERS, person.rois)[["auc", "accuracy", "precision", "recall"]].mean()
    asked = [CATEGORIES.index(text) for text in LOCALIZERS]
    agreement = [np.corrcoef(result.selectivity[:, c], truth.selectivity[:, c])[0, 1] for c in asked]
    selected = result.selected()[:, asked]
    wrong = (truth.selectivity[:, asked] <= 0) & selected
    false = wrong.sum() / selected.sum() if selected.any() else np.nan
    return {**figures, "r with truth": np.mean(agreement), "false": false, "selected": selected.mean()}


def people(arguments):
    """Localiser regions of simulated people by made-up words."""
    rows = []
    for seed in range(arguments.n_worlds):
        world = simulate_people(3, n_own=120, random_state=seed)
        category = np.array([name.rsplit("-", 1)[0] for name in world.image_ids])
        rng = np.random.default_rng(seed)
        gap = 2.0 * rng.standard_normal(world.features.shape[1]) / np.sqrt(world.features.shape[1])
        texts = np.stack([world.features[category == name].mean(axis=0) for name in CATEGORIES]) + gap
        pool = world.features[~np.isin(world.image_ids, world.shared)]
        data = []
        for person in world.people:
            subject = person.subject()
            own = subject.select_images(subject.image_ids[~np.isin(subject.image_ids, world.shared)])
            data.append((world.features_of(own.image_ids), own.responses))
        makers = {**NAMES, "group prior": partial(GroupPriorEncoder, GroupPrior.fit(data[1:], X_pool=pool))}
        person, (X, y) = world.people[0], data[0]
        truth = text_selectivity(true_encoder(person), texts, pool, texts=CATEGORIES)
        rows.append(("true encoders", 0, score(true_encoder(person), world, person, texts, pool, truth)))
        for n in (20, 100):
            context = rng.permutation(len(X))[:n]
            for name, maker in makers.items():
                encoder = fit(maker(), X[context], y[context], pool)
                rows.append((name, n, score(encoder, world, person, texts, pool, truth)))
    table = pd.DataFrame([{"encoder": name, "n": n, **figures} for name, n, figures in rows])
    spread = table.groupby(["n", "encoder"], sort=False).agg(["mean", "std"])
    columns = list(dict.fromkeys(spread.columns.get_level_values(0)))
    print(
        f"SIMULATION: one person in each of {arguments.n_worlds} worlds, five categories with localiser regions; "
        "mean ± spread over worlds.\nauc, accuracy (most selective word), precision and recall (selected, q < .05) "
        "among the voxels of localiser regions;\nfalse: share of all selected voxels whose true selectivity is not "
        "above 0.\n"
    )
    body = [
        [name, n or "", *(f"{row[c, 'mean']:.3f} ± {row[c, 'std']:.3f}" for c in columns)]
        for (n, name), row in spread.iterrows()
    ]
    print_table(["encoder", "images", *columns], body)


def ranks(scores, words):
    """How many of all words a voxel's own word is behind."""
    own = scores[np.arange(len(words)), words]
    return (scores > own[:, None]).sum(axis=1)


def clip(arguments):
    """Words of simulated voxels, among all words."""
    folder = real_data() / "clip_vitb32"
    with np.load(folder / "images.npz") as file:
        X = file["embeddings"].astype(np.float32)
    with np.load(folder / "text_lvis.npz") as file:
        texts = file["embeddings"].astype(np.float32)
    makers = dict(NAMES)
    for raw in (False, True):
        rows = []
        for draw in range(arguments.n_draws):
            rng = np.random.default_rng(draw)
            order, words = rng.permutation(len(X)), rng.choice(len(texts), N_VOXELS, replace=False)
            pool, weights = X[order[N_HELD_BACK:]], texts[words] - (0 if raw else texts.mean(axis=0))
            signal = X @ weights.T
            signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
            ceiling = 0.05 + 0.65 * rng.random(N_VOXELS) ** 1.3
            for n in (50, 100, 200):
                noise = rng.standard_normal((n, N_VOXELS))
                context = order[:n]
                y = (np.sqrt(ceiling) * signal[context] + np.sqrt(1 - ceiling) * noise).astype(np.float32)
                for name, scores in answers(makers, X[context], y, pool, texts):
                    found = ranks(scores, words)
                    rows.append((name, n, np.mean(found < 1), np.mean(found < 5)))
        table = pd.DataFrame(rows, columns=["query", "n", "top 1", "top 5"]).groupby(["query", "n"], sort=False)
        mean, std = table.mean(), table.std().fillna(0)
        what = "a word's embedding itself" if raw else "a word's deviation from the mean word"
        print(
            f"SIMULATION on real CLIP features: {N_VOXELS} voxels whose weights are {what}; share of voxels whose own "
            f"word is first, or among the first five, of {len(texts):,}; {arguments.n_draws} draws\n"
        )
        for column in ("top 1", "top 5"):
            body = [
                [
                    name,
                    *(f"{mean.loc[(name, n), column]:.3f} ± {std.loc[(name, n), column]:.3f}" for n in (50, 100, 200)),
                ]
                for name in mean.index.get_level_values(0).unique()
            ]
            print_table([column, "50", "100", "200"], body)


def answers(makers, X, y, pool, texts):
    """Scores of all words for every voxel (n_voxels, n_words), by several ways of asking."""
    deviations = texts - texts.mean(axis=0)
    for name, maker in makers.items():
        encoder = fit(maker(), X, y, pool)
        result = text_selectivity(encoder, texts, pool)
        yield f"{name}, selectivity", result.selectivity
        yield f"{name}, specificity (selectivity relative to the other voxels)", result.specificity
        if result.significance == "posterior":
            yield f"{name}, posterior z", result.z
        yield f"{name}, texts not scaled by images' spread", encoder.coef_ @ deviations.T
        in_metric = make_pool(pool, X.shape[1])
        profile = in_metric.in_metric(encoder.coef_) @ in_metric.in_metric(deviations).T
        yield f"{name}, r of predictions with images' likeness to the word", profile / in_metric.spread(deviations)
    # No encoder at all: the word along which the context images' likeness goes with the responses best.
    likeness = (X - X.mean(axis=0)) @ deviations.T
    yield (
        "no encoder, r of responses with images' likeness to the word",
        y.T @ (likeness / np.linalg.norm(likeness, axis=0)),
    )


def object2vec(arguments):
    """Ask for places versus things in PPA and LOC of real people, by categories that no encoder has seen."""
    with np.load(real_data() / "object2vec" / "object2vec.npz") as file:
        names = file["conds"].tolist()
    places, things = ([names.index(name) for name in group] for group in (PLACES, THINGS))
    rest = np.setdiff1d(np.arange(len(names)), [*places, *things])
    rows = []
    for space, label in (("word2vec30", "words (word2vec)"), ("alexnet20", "example images (AlexNet)")):
        X, people_responses, regions = load_object2vec(space)
        for person, (y, region) in enumerate(zip(people_responses, regions, strict=True)):
            scene = region == "PPA"
            measured = (y[places].mean(axis=0) - y[things].mean(axis=0)) / y.std(axis=0)
            rows.append(("measured responses to the 16", 16, 0, person, roc_auc_score(scene, measured)))
            for n in (10, 20, 40, len(rest)):
                for draw in range(arguments.n_draws if n < len(rest) else 1):
                    context = np.random.default_rng(draw).permutation(rest)[:n]
                    for name, maker in NAMES.items():
                        encoder = fit(maker(), X[context], y[context], X[rest])
                        result = text_selectivity(
                            encoder, X[places].mean(axis=0), X[rest], versus=X[things].mean(axis=0), background=X[rest]
                        )
                        auc = roc_auc_score(scene, result.selectivity[:, 0])
                        rows.append((f"{label}, {name}", n, draw, person, auc))
    table = pd.DataFrame(rows, columns=["query", "n", "draw", "person", "auc"])
    over_people = table.groupby(["query", "n", "draw"], sort=False)["auc"].mean().groupby(["query", "n"], sort=False)
    mean, std = over_people.mean(), over_people.std()
    print(
        "Real voxels (object2vec, 4 people): AUC of PPA against LOC by selectivity for places versus things, mean over "
        f"people ± spread over {arguments.n_draws} draws of the context categories; both groups left out of the fits\n"
    )
    one_draw = std.isna()
    body = [
        [name, n, f"{mean[name, n]:.3f}" + ("" if one_draw[name, n] else f" ± {std[name, n]:.3f}")]
        for name, n in mean.index
    ]
    print_table(["query", "categories", "AUC"], body)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="people, clip, object2vec (default: all)")
    parser.add_argument("--n-worlds", type=int, default=5)
    parser.add_argument("--n-draws", type=int, default=5)
    arguments = parser.parse_args()
    logging.getLogger("braincorl").setLevel(logging.ERROR)  # ten made-up texts are few, and known to be
    for part in arguments.parts or ("people", "clip", "object2vec"):
        {"people": people, "clip": clip, "object2vec": object2vec}[part](arguments)


if __name__ == "__main__":
    main()
