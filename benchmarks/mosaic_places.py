"""A memory with places against one without, on six people in one space: leave one person out.

SIMULATION: responses are linear in random features, with weights that vary smoothly over the cortex (8 mm), most of
them shared by all people and the rest each person's own; every image once, a fifth of a trial's variance signal. People
are written as files of MOSAIC and read back, at the vertices of some areas. EV is of the noise-free responses to images
that nobody has seen.

    uv run python benchmarks/mosaic_places.py SCRATCH
"""

import argparse
from pathlib import Path

import h5py
import numpy as np
from common import mean_ev, print_table

from braincorl import BayesianRidgeEncoder, GroupPrior, InContextEncoder
from braincorl.datasets import load_mosaic
from braincorl.datasets.mosaic import N_GRAYORDINATES, MosaicPerson, read_areas

AREAS = ("V8", "FFC", "PIT", "VMV2", "LO2")
N_PEOPLE, N_IMAGES, N_TEST, N_FEATURES = 6, 120, 100, 24
LENGTH_MM, SHARED, SIGNAL = 8.0, 0.7, 0.2


def fields(places, rng, n):
    """Smooth random functions of place (n_places, n), of unit variance: random waves of a Gaussian spectrum."""
    waves = rng.standard_normal((400, 3)) / LENGTH_MM
    phases = rng.uniform(0, 2 * np.pi, 400)
    return np.sqrt(2 / 400) * np.cos(places @ waves.T + phases) @ rng.standard_normal((400, n))


def simulate(root, places, inside):
    """Write people; give their features and the true weights."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((N_PEOPLE * N_IMAGES + N_TEST, N_FEATURES))
    common = fields(places, np.random.default_rng(1), N_FEATURES)
    weights = []
    for number in range(1, N_PEOPLE + 1):
        own = fields(places, np.random.default_rng(100 + number), N_FEATURES)
        truth = (np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own) / np.sqrt(N_FEATURES)
        weights.append(truth)
        path = root / f"{MosaicPerson.parse('NSD', number).stem}.hdf5"
        with h5py.File(path, "w") as file:
            group = file.create_group("betas", track_order=True)
            for image in range((number - 1) * N_IMAGES, number * N_IMAGES):
                response = np.zeros(N_GRAYORDINATES, dtype="f4")
                signal = truth @ features[image] * np.sqrt(SIGNAL)
                response[inside] = signal + rng.standard_normal(len(signal)) * np.sqrt(1 - SIGNAL)
                group[f"sub-{number:02d}_NSD_stimulus-{image:05d}_phase-train_rep-0"] = response
    return features, weights


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--context", type=int, nargs="+", default=[10, 20, 50])
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    inside = np.any([area for name, area in read_areas().items() if name in AREAS], axis=0)
    # Any file tells where the vertices lie.
    with h5py.File(options.scratch / "sub-01_NSD.hdf5", "w") as file:
        for number in range(2):
            file[f"betas/a_rep-{number}"] = np.random.default_rng(number).standard_normal(N_GRAYORDINATES)
            file[f"betas/b_rep-{number}"] = np.random.default_rng(9 + number).standard_normal(N_GRAYORDINATES)
    places = load_mosaic(options.scratch, "NSD", 1, voxels=AREAS).space.coordinates()
    features, weights = simulate(options.scratch, places, inside)
    people = [load_mosaic(options.scratch, "NSD", number, voxels=AREAS) for number in range(1, N_PEOPLE + 1)]
    of = [features[person.image_ids.astype(int)] for person in people]
    encoders = [BayesianRidgeEncoder().fit(X, person.responses) for X, person in zip(of, people, strict=True)]
    test = features[-N_TEST:]
    found = {}
    for held in range(N_PEOPLE):
        others = [encoders[n] for n in range(N_PEOPLE) if n != held]
        pool = np.concatenate([of[n] for n in range(N_PEOPLE) if n != held])
        priors = {
            "in-context, no memory": None,
            "with earlier people's voxels": GroupPrior.fit(others, X_pool=pool),
            "and their places": GroupPrior.fit(others, positions=[places] * len(others), X_pool=pool),
        }
        truth = test @ weights[held].T * np.sqrt(SIGNAL)
        for n in options.context:
            X, y = of[held][:n], people[held].responses[:n]
            for name, prior in priors.items():
                more = {"positions": places} if name == "and their places" else {}
                encoder = InContextEncoder(prior=prior).fit(X, y, X_pool=pool, **more)
                found.setdefault(name, {}).setdefault(n, []).append(mean_ev(truth, encoder.predict(test)))
    print(
        f"SIMULATION: {N_PEOPLE} people, {len(places)} vertices, EV of noise-free responses, mean ± spread over people"
    )
    rows = [
        [name, *(f"{np.mean(by_n[n]):.3f} ± {np.std(by_n[n]):.3f}" for n in options.context)]
        for name, by_n in found.items()
    ]
    print_table(["images", *map(str, options.context)], rows)


if __name__ == "__main__":
    main()
