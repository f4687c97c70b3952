"""Queries on real features and real voxels, which stay outside the repository; `benchmarks/words.py` has the tables."""

import numpy as np
from sklearn.metrics import roc_auc_score

from braincorl import BayesianRidgeEncoder
from braincorl.analysis import text_selectivity


def test_voxels_along_clips_words_are_found_among_all_words(real_data, rng):
    with np.load(real_data / "clip_vitb32" / "images.npz") as file:
        X = file["embeddings"].astype(np.float32)
    with np.load(real_data / "clip_vitb32" / "text_lvis.npz") as file:
        texts = file["embeddings"].astype(np.float32)
    order, words = rng.permutation(len(X)), rng.choice(len(texts), 200, replace=False)
    signal = X @ (texts[words] - texts.mean(axis=0)).T
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    y = (signal[order[:100]] + rng.standard_normal((100, 200))).astype(np.float32)
    encoder = BayesianRidgeEncoder().fit(X[order[:100]], y, X_pool=X[order[1000:]])
    scores = text_selectivity(encoder, texts, X[order[1000:]], significance="directions").selectivity
    assert (scores.argmax(axis=1) == words).mean() > 0.7


def test_example_places_find_real_scene_voxels(real_data):
    with np.load(real_data / "object2vec" / "object2vec.npz") as file:
        names, X = file["conds"].tolist(), file["alexnet20"].astype(np.float64)
        y, roi = file["subj002_betas"].astype(np.float64), file["subj002_roinames"][file["subj002_roi"] - 1]
    places = [names.index(name) for name in ("building", "cliff", "house", "mountain", "road", "sea")]
    things = [names.index(name) for name in ("bottle", "bowl", "cup", "jar", "mug", "pen")]
    rest = np.setdiff1d(np.arange(len(names)), places + things)
    encoder = BayesianRidgeEncoder().fit(X[rest], y[rest])
    result = text_selectivity(
        encoder, X[places].mean(axis=0), X[rest], versus=X[things].mean(axis=0), background=X[rest]
    )
    assert roc_auc_score(roi == "PPA", result.selectivity[:, 0]) > 0.9
