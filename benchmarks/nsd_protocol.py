r"""The paper's protocol on NSD, end to end, on files laid out like NSD: leave one person out, few images, shared test.

SIMULATION, in every number: people, images, features and responses are drawn (`simulate_people`'s world), written as
int16 sessions with MATLAB design, table of stimuli, label volumes and noise ceilings, and read back by `load_nsd`. It
shows that the road from disk to table works, and how the encoders compare in that world; nothing on real brains.

Each person in turn is new. Context: images of their own (never the shared 1,000). Test: the images that all people saw
at least once, averaged. Others' own images teach the group prior and the group average (the mean prediction of the
others' fully trained ridge at the same place, which needs no image of the new person); no test image teaches anything.

    uv run python benchmarks/nsd_protocol.py --folder SCRATCH
    uv run python benchmarks/nsd_protocol.py --folder SCRATCH --sessions 4 --n-draws 3 --voxel-size 4 \
        --n-components 8 --shrinkage 100
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from common import print_table
from nsd_writer import write_nsd_design, write_nsd_labels, write_nsd_ncsnr, write_nsd_session

from braincorl import GroupPrior, GroupPriorEncoder, InContextEncoder
from braincorl.datasets import load_prepared, prepare, simulate_people, split_nsd
from braincorl.datasets.nsd.design import read_stimuli, shared_images
from braincorl.datasets.nsd.layout import NsdFolder
from braincorl.datasets.nsd.person import open_nsd
from braincorl.encoders import BayesianRidgeEncoder, RidgeEncoder
from braincorl.metrics import explained_variance

SUBJECTS = (1, 2, 5, 7)
N_CONTEXT = (30, 70, 100, 300, 510)
ENCODERS = ("ridge", "bayesian-ridge", "in-context", "group-prior", "in-context-prior")


def write_people(root, n_sessions, voxel_size, random_state):
    """Simulate people of one world and write them as NSD subjects; returns the features of all stimuli shown."""
    design = write_nsd_design(root, random_state)
    trials = n_sessions * 750
    shown = {subject: design.shown(subject)[:trials] for subject in SUBJECTS}
    stimuli = np.unique(np.concatenate(list(shown.values())))
    world = simulate_people(
        len(SUBJECTS),
        n_own=0,
        n_shared=stimuli.size,
        shared_repeats=1,
        voxel_size_mm=voxel_size,
        random_state=random_state,
    )
    rng = np.random.default_rng(random_state)
    row = np.full(73_000, -1)
    row[stimuli] = np.arange(stimuli.size)
    for subject, person in zip(SUBJECTS, world.people, strict=True):
        folder = NsdFolder(root, subject)
        mask, affine = person.space.mask, person.space.affine
        mean = person.true_responses(world.features).astype(np.float32)
        # One draw of noise per stimulus, shared by neighbours and with outliers; trials take draws at random.
        place = {name: number for number, name in enumerate(world.image_ids.tolist())}
        residual = person.trials - mean[[place[name] for name in person.trial_images.tolist()]]
        for session in range(n_sessions):
            rows = row[shown[subject][session * 750 : (session + 1) * 750]]
            noise = residual[rng.integers(0, len(residual), 750)]
            # Sessions drift in level and gain, which z-scoring within sessions must take out.
            gain, level = rng.uniform(0.8, 1.25), rng.normal(0, 0.5)
            write_nsd_session(folder, session + 1, gain * (mean[rows] + noise) + level, mask, affine, ".hdf5")
        write_nsd_ncsnr(folder, mean.std(axis=0) / np.sqrt(person.noise_variance), mask, affine)
        write_regions(folder, person, mask, affine)
    return dict(zip(stimuli.astype(str).tolist(), world.features, strict=True))


def write_regions(folder, person, mask, affine):
    """Label volumes: early visual cortex is retinotopic, the other regions are localisers'."""
    homes = {"prf-visualrois": ("EarlyVis",), "floc-faces": ("FFA",), "floc-bodies": ("EBA", "LOC")}
    homes |= {"floc-places": ("PPA", "OPA", "RSC"), "floc-words": ("Food",)}
    for atlas, regions in homes.items():
        labels = np.full(mask.shape, -1)
        inside = np.zeros(int(mask.sum()), dtype=int)
        for number, region in enumerate(regions, start=1):
            inside[person.rois[region]] = number
        labels[mask] = inside
        write_nsd_labels(folder, atlas, labels, affine, dict(enumerate(regions, start=1)))


def read_people(root, n_sessions):
    """Prepare and read everyone, and split their images."""
    people = {}
    for subject in SUBJECTS:
        recording = open_nsd(root, subject, sessions=range(1, n_sessions + 1))
        data = load_prepared(prepare(recording, root / f"subj{subject:02d}.h5"))
        shared = shared_images(read_stimuli(NsdFolder(root, subject).stimuli), SUBJECTS, 1).astype(str)
        split = split_nsd(root, data, subjects=SUBJECTS, min_repeats=1)
        assert not set(split.own) & set(split.test) | (set(split.test) - set(shared))
        people[subject] = (data, split)
    # The test images that everyone saw, as often as they were shown in these sessions.
    common = set.intersection(*(set(split.test) for _, split in people.values()))
    return people, np.array(sorted(common, key=int))


def features_of(features, image_ids):
    return np.stack([features[name] for name in image_ids])


def make_encoders(names, people, left_out, features):
    """Make the encoders to compare; a group prior rests on the other people's own images."""
    prior = None
    if any("prior" in name for name in names):
        others = [
            (features_of(features, split.own), data.select_images(split.own).responses)
            for subject, (data, split) in people.items()
            if subject != left_out
        ]
        prior = GroupPrior.fit(others)
    makers = {
        "ridge": RidgeEncoder,
        "bayesian-ridge": BayesianRidgeEncoder,
        "in-context": InContextEncoder,
        "group-prior": lambda: GroupPriorEncoder(prior),
        "in-context-prior": lambda: InContextEncoder(prior=prior),
    }
    return {name: makers[name]() for name in names}


def group_average(people, left_out, whole, queries):
    """Mean prediction of the others' fully trained ridge at the same place; 0 where no other person has a voxel."""
    mask = people[left_out][0].space.mask
    total, count = np.zeros((len(queries), mask.sum())), np.zeros(mask.sum())
    for subject, (data, _) in people.items():
        if subject != left_out:
            place = np.full(mask.shape, -1)
            place[data.space.mask] = np.arange(data.space.mask.sum())
            found = place[mask]
            there = np.isin(found, np.flatnonzero(data.space.included))
            column = np.cumsum(data.space.included) - 1
            total[:, there] += whole[subject].predict(queries)[:, column[found[there]]]
            count += there
    keep = people[left_out][0].space.included
    return (total / np.maximum(count, 1))[:, keep], count[keep]


def compare(people, test, features, options):
    rows, alone = [], 0
    queries = features_of(features, test)
    whole = {
        subject: RidgeEncoder().fit(features_of(features, split.own), data.select_images(split.own).responses)
        for subject, (data, split) in people.items()
    }
    for subject, (data, split) in people.items():
        tested = data.select_images(test)
        rows.append(("noise ceiling", subject, 0, 0, float(np.nanmean(tested.noise_ceiling()))))
        average, count = group_average(people, subject, whole, queries)
        alone += int((count == 0).sum())
        for name, predicted in (
            ("ridge, all own images", whole[subject].predict(queries)),
            ("group average of the others", average),
        ):
            rows.append((name, subject, 0, 0, score(tested.responses, predicted)))
        start = time.perf_counter()
        encoders = make_encoders(options.encoders, people, subject, features)
        print(f"S{subject}: encoders ready after {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        pool = features_of(features, split.own)
        for draw in range(options.n_draws):
            order = np.random.default_rng(draw).permutation(split.own)
            for n in (n for n in N_CONTEXT if n <= split.own.size):
                X, y = features_of(features, order[:n]), data.select_images(order[:n]).responses
                for name, encoder in encoders.items():
                    encoder.fit(X, y, X_pool=pool) if encoder.uses_pool else encoder.fit(X, y)
                    rows.append((name, subject, n, draw, score(tested.responses, encoder.predict(queries))))
    return pd.DataFrame(rows, columns=["encoder", "subject", "n", "draw", "EV"]), alone


def score(truth, predicted):
    """Mean explained variance over voxels; a constant prediction explains 0."""
    with np.errstate(invalid="ignore"):
        return float(np.nanmean(explained_variance(truth, predicted)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sessions", type=int, default=2)
    parser.add_argument("--n-draws", type=int, default=2)
    parser.add_argument("--voxel-size", type=int, default=6, help="mm; smaller voxels are more")
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=ENCODERS[:3])
    parser.add_argument("--random-state", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    features = write_people(options.folder, options.sessions, options.voxel_size, options.random_state)
    people, test = read_people(options.folder, options.sessions)
    read = time.perf_counter()
    table, alone = compare(people, test, features, options)
    counts = ", ".join(f"S{subject} {data.n_voxels}" for subject, (data, _) in people.items())
    own = ", ".join(f"S{subject} {split.own.size}" for subject, (_, split) in people.items())
    repeats = np.concatenate([data.select_images(test).n_repeats for data, _ in people.values()])
    print(
        f"SIMULATION: NSD-like files of subjects {SUBJECTS}, {options.sessions} sessions of 750 trials each; "
        f"higher-visual voxels {counts} ({alone} at places that no other person has); own images {own}; test on "
        f"{test.size} shared images, {repeats.min()}-{repeats.max()} trials each; {options.n_draws} draws of context; "
        f"mean EV over voxels, of measured responses; files {read - start:.0f} s, "
        f"encoders {time.perf_counter() - read:.0f} s\n"
    )
    report(table)


def report(table):
    """Print how encoders grow with images, and the paper's table per person."""
    few = table[table["n"] > 0]
    sizes = sorted(few["n"].unique())
    spread = few.groupby(["encoder", "n", "draw"])["EV"].mean().groupby(["encoder", "n"]).agg(["mean", "std"])
    names = list(dict.fromkeys(few["encoder"]))
    cells = [[name, *(show(spread.loc[(name, n)]) for n in sizes)] for name in names]
    print_table(["context images", *map(str, sizes)], cells)
    lines = [(name, 100) for name in names] + ([("ridge", 300)] if "ridge" in names else [])
    lines += [(name, 0) for name in ("group average of the others", "ridge, all own images", "noise ceiling")]
    means = table.groupby(["encoder", "n", "subject"])["EV"].mean()
    rows = []
    for name, n in lines:
        if (name, n) in means.index.droplevel("subject"):
            values = means.loc[(name, n)]
            label = f"{name}, {n} images" if n else name
            rows.append([label, *(f"{values[s]:.3f}" for s in SUBJECTS), f"{values.mean():.3f}"])
    print_table(["mean EV", *(f"S{s}" for s in SUBJECTS), "mean"], rows)


def show(cell):
    return f"{cell['mean']:.3f} ± {cell['std']:.3f}"


if __name__ == "__main__":
    main()
