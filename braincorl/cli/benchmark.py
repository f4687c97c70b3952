"""`braincorl benchmark`: accuracy and speed of every encoder side by side, on simulated people or on one's own."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.analysis.benchmarking import Benchmark, write_benchmark
from braincorl.analysis.figures import new_figure, own_style, plot_scaling, save_figure
from braincorl.analysis.scaling import scaling_curve, summarize_curve, summarize_regions
from braincorl.cli.common import (
    add_data_options,
    add_encoder_options,
    add_output_options,
    add_person_options,
    add_verb,
    make_encoder,
    non_negative,
    positive,
    progress_bar,
    read_features,
    read_responses,
)
from braincorl.datasets import simulate_people
from braincorl.datasets.splits import split_repeated
from braincorl.encoders import GroupPriorEncoder, LinearEncoder
from braincorl.encoders.choice import ENCODERS, NETWORK_ENCODER, PRIOR_ENCODER
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.features.store.feature_files import read_names
from braincorl.fits.fitting import check_features_vary, fit_arguments, pool_without
from braincorl.fits.folder import hash_responses
from braincorl.fits.seen_images import without_copies
from braincorl.metrics import mean_over_voxels
from braincorl.priors import GroupPrior
from braincorl.result_folders import check_destination, staged_directory

COUNTS = (10, 20, 50, 100)  # about doubling, as curves over images are read on a logarithmic axis
TEST_SHARE = 0.25  # of images without repeats, when nothing says which to test on

SIMULATION = (
    "SIMULATION: responses were drawn from known encoders, no brain was measured. EV and r are against the noise-free "
    "truth, on 100 images that no encoder was fitted on; the group prior was learned from two other simulated people."
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Task:
    """What the encoders are compared on.

    Attributes
    ----------
    X, y
        Features and responses that contexts are drawn from.
    X_test, y_test
        Images to score on.
    pool
        Features of any images but the test's.
    makers
        Encoder name -> a function that makes one.
    arguments
        Encoder name -> further arguments of its `fit`.
    ceiling
        Mean noise ceiling of EV over voxels, or None.
    note
        What a reader must know.
    subject
        Whose responses.
    rois
        Region name -> bool (n_voxels,).
    features_provenance
        Of the images' features.
    """

    X: Array
    y: Array
    X_test: Array
    y_test: Array
    pool: Array
    makers: Mapping[str, Callable[[], LinearEncoder]]
    arguments: Mapping[str, Mapping[str, Any]]
    ceiling: float | None
    note: str
    subject: str = "simulation"
    rois: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    features_provenance: Mapping[str, Any] = field(default_factory=dict)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "benchmark",
        "Compare encoders by accuracy (EV, r) and time at growing numbers of images.\n"
        "With no data, on simulated people, offline; with --features, --betas and --trials, on a person of yours.",
    )
    add_data_options(parser, required=False)
    add_person_options(parser)
    add_encoder_options(parser)
    parser.add_argument(
        "--encoders",
        nargs="+",
        choices=(*ENCODERS, PRIOR_ENCODER),
        metavar="NAME",
        help=f"what to compare: {', '.join((*ENCODERS, PRIOR_ENCODER))} (default: all that the other options allow)",
    )
    parser.add_argument(
        "--counts",
        type=positive,
        nargs="+",
        metavar="N",
        help=f"numbers of context images (default: {', '.join(map(str, COUNTS))} and all)",
    )
    parser.add_argument("--n-draws", type=positive, default=5, metavar="N", help="random contexts each (default: 5)")
    parser.add_argument(
        "--test",
        type=Path,
        metavar="TXT",
        help="images to score on, one name per line (default: those shown more than once if others were not, else a "
        "random quarter)",
    )
    parser.add_argument("--random-state", type=non_negative, default=0, metavar="S", help="seed (default: 0)")
    add_output_options(parser, required=False, default="none, the table is only printed")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compare, print, and write table and figure at once."""
    if options.output_dir is not None:
        check_destination(options.output_dir, overwrite=options.overwrite, kind="benchmark")
    task = _read_task(options) if _has_data(options) else _simulate_task(options)
    counts = options.counts or [*(n for n in COUNTS if n < len(task.X)), len(task.X)]
    if max(counts) > len(task.X):
        raise InputError(
            f"--counts asks for {max(counts)} context images, but besides the test's there are {len(task.X)}: "
            "ask for fewer, or score on fewer with --test."
        )
    ev: dict[tuple[str, int], list[Array]] = {}
    with progress_bar("comparing encoders", "fit") as progress:
        curve = scaling_curve(
            task.makers,
            task.X,
            task.y,
            counts,
            options.n_draws,
            X_test=task.X_test,
            y_test=task.y_test,
            X_pool=task.pool,
            fit_arguments=task.arguments,
            random_state=options.random_state,
            progress=progress,
            keep=lambda name, n, values: ev.setdefault((name, n), []).append(values),
        )
    print(task.note)
    for column, label in (("ev", "EV"), ("r", "r"), ("seconds", "seconds per fit")):
        print(summarize_curve(curve.rename(columns={column: label}), label).to_string(index=False))
    ceiling = "" if task.ceiling is None else f"; mean noise ceiling of EV {task.ceiling:.3f}"
    print(f"means over {task.y.shape[1]} voxels, ± spread over {options.n_draws} draws of context images{ceiling}")
    if options.output_dir is not None:
        found = Benchmark(
            subject=task.subject,
            note=task.note,
            curve=curve,
            n_voxels=task.y.shape[1],
            ceiling=task.ceiling,
            simulation=task.note == SIMULATION,
            features_provenance=dict(task.features_provenance),
            regions=summarize_regions(ev, task.rois) if task.rois else None,
            inputs=_inputs(options, task, counts),
        )
        with staged_directory(options.output_dir, overwrite=options.overwrite, kind="benchmark") as folder:
            _draw(folder / "figure.png", found)
            write_benchmark(folder, found)
        print(f"tables and figure in {options.output_dir}")


def _inputs(options: argparse.Namespace, task: Task, counts: list[int]) -> dict[str, Any]:
    """Everything that another run needs to find the same."""
    names = (
        "features",
        "image_ids",
        "betas",
        "trials",
        "mask",
        "rois",
        "ncsnr",
        "zscore",
        "prior",
        "checkpoint",
        "test",
    )
    given = {name: getattr(options, name) for name in names}
    return {
        **given,
        "encoders": list(task.makers),
        "counts": counts,
        "n_draws": options.n_draws,
        "n_test": len(task.X_test),
        "random_state": options.random_state,
        "responses_sha256": hash_responses(np.concatenate([task.y, task.y_test])),
    }


def _has_data(options: argparse.Namespace) -> bool:
    """Whether a person was given; half of one is a mistake."""
    if options.features is None and options.betas is None:
        given = {"--trials": options.trials, "--mask": options.mask, "--rois": options.rois, "--test": options.test}
        extra = [name for name, value in given.items() if value]
        if extra:
            raise InputError(
                f"{extra[0]} belongs to a person's data: pass --features and --betas too, or none of them."
            )
        return False
    if options.features is None or options.betas is None:
        raise InputError("--features and --betas belong together: pass both, or neither for simulated people.")
    return True


def _read_task(options: argparse.Namespace) -> Task:
    """Task of a person on disk."""
    table = read_features(options)
    subject = read_responses(options, table, options.mask, options.zscore, options.rois)
    own, test, how = _split(options, subject, table)
    check_features_vary(table.features[table.rows(own)])
    held_out, context = subject.select_images(test), subject.select_images(own)
    names = options.encoders or [*ENCODERS, *([PRIOR_ENCODER] if options.prior is not None else [])]
    makers = {name: partial(_make, name, options) for name in names}
    ceiling = held_out.noise_ceiling()
    return Task(
        X=table.features[table.rows(own)],
        y=context.responses,
        X_test=table.features[table.rows(test)],
        y_test=held_out.responses,
        pool=pool_without(table, test),
        makers=makers,
        arguments={name: fit_arguments(maker(), table, subject) for name, maker in makers.items()},
        ceiling=None if ceiling is None else mean_over_voxels(ceiling),
        note=f"{subject.name}: scored on {test.size} images, {how}; contexts drawn from {own.size} others.",
        subject=subject.name,
        rois=subject.rois,
        features_provenance=table.provenance,
    )


def _split(options: argparse.Namespace, subject: Any, table: FeatureTable) -> tuple[Array, Array, str]:
    """Images to fit on, images to score on, and how they were chosen."""
    images: Array = subject.image_ids
    if options.test is not None:
        test = np.asarray(list(dict.fromkeys(read_names(options.test))))
        subject.select_images(test)  # refuses unknown names
        own, how = images[~np.isin(images, test)], f"those of {options.test.name}"
    elif (subject.n_repeats > 1).any() and (subject.n_repeats == 1).sum() >= 2:
        own, test = split_repeated(subject)
        how = "those shown more than once"
    else:
        order = np.random.default_rng(options.random_state).permutation(np.sort(images))
        n_test = max(2, round(TEST_SHARE * images.size))
        test, own, how = order[:n_test], order[n_test:], "drawn at random"
    test = without_copies(table, own, test)
    if own.size < 2 or test.size < 2:
        raise InputError(f"{own.size} images to fit on and {test.size} to score on: a comparison needs 2 of each.")
    return own, test, how


def _simulate_task(options: argparse.Namespace) -> Task:
    """Task of a simulated person, with a group prior from two others."""
    names = options.encoders or [*ENCODERS, PRIOR_ENCODER]
    learns = PRIOR_ENCODER in names and options.prior is None
    world = simulate_people(3 if learns else 1, random_state=options.random_state)
    pool = world.features[~np.isin(world.image_ids, world.shared)]
    people = []
    for person in world.people:
        subject = person.subject()
        own = subject.select_images(subject.image_ids[~np.isin(subject.image_ids, world.shared)])
        people.append((world.features_of(own.image_ids), own.responses))
    makers = {name: partial(_make, name, options) for name in names}
    if learns:
        prior = GroupPrior.fit(people[1:], X_pool=pool)
        makers[PRIOR_ENCODER] = partial(GroupPriorEncoder, prior)
    queries = world.features_of(world.shared)
    truth = world.people[0].true_responses(queries)
    rois = world.people[0].subject().rois
    return Task(*people[0], queries, truth, pool, makers, {}, None, SIMULATION, rois=rois)


def _make(name: str, options: argparse.Namespace) -> LinearEncoder:
    """Make one of the encoders, with the options that are its own."""
    own = dict(vars(options), encoder=name)
    if name != PRIOR_ENCODER:
        own["prior"] = None
    if name != NETWORK_ENCODER:
        own |= dict.fromkeys(("checkpoint", "device", "precision"))
    return make_encoder(argparse.Namespace(**own))


@own_style
def _draw(path: Path, found: Benchmark) -> None:
    """EV, r and time against the number of context images."""
    figure = new_figure(14, 4)
    panels = figure.subplots(1, 3)
    labels = {"ev": "explained variance", "r": "r", "seconds": "seconds per fit"}
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        ceiling = found.ceiling if column == "ev" else None
        plot_scaling(axes, found.curve.rename(columns={column: "score"}), label, ceiling)
    panels[2].set_yscale("log")
    figure.suptitle("Simulation" if found.simulation else found.note, x=0.02, ha="left", fontsize=10)
    figure.tight_layout()
    save_figure(figure, path)
