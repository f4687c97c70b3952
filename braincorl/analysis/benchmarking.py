"""Encoders side by side at growing numbers of images: on a person, or on simulated people; and the folder of it.

    found = benchmark_person(subject, features, {"ridge": RidgeEncoder(), "in-context": InContextEncoder()})
    found.save("compared")

dataset_description.json   BIDS derivative, with README.md
scores.tsv                 one row per encoder, number of images and draw: EV, r, seconds
regions.tsv                mean EV per region, with intervals over voxels and draws; where regions are known
config.json                whose responses, which images, noise ceiling
figure.png                 the curves
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from braincorl import __version__
from braincorl.analysis.figures import new_figure, own_style, plot_scaling, save_figure
from braincorl.analysis.scaling import Makers, made, scaling_curve, summarize_curve, summarize_regions
from braincorl.datasets import SubjectData, simulate_people
from braincorl.datasets.splits import split_repeated
from braincorl.encoders import GroupPriorEncoder
from braincorl.encoders.choice import ENCODERS, PRIOR_ENCODER
from braincorl.errors import InputError
from braincorl.features import FeatureTable, check_same_space
from braincorl.features.store.feature_files import read_names
from braincorl.fits import Fit
from braincorl.fits.fitting import check_features_vary, fit_arguments, pool_without
from braincorl.fits.folder import hash_responses, write_description
from braincorl.fits.seen_images import without_copies
from braincorl.metrics import mean_over_voxels
from braincorl.priors import GroupPrior
from braincorl.storage.files import Progress, read_json, write_json
from braincorl.storage.result_folders import staged_directory

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Names = npt.NDArray[np.str_]

COLUMNS = {"encoder", "n_context", "draw", "ev", "r", "seconds"}
COUNTS = (10, 20, 50, 100)  # about doubling, as curves over images are read on a logarithmic axis
TEST_SHARE = 0.25  # of images without repeats, when nothing says which to test on
SHOWN = {"ev": "EV", "r": "r", "seconds": "seconds per fit"}

SIMULATION = (
    "SIMULATION: responses were drawn from known encoders, no brain was measured. EV and r are against the noise-free "
    "truth, on 100 images that no encoder was fitted on; the group prior was learned from two other simulated people."
)


@dataclass(frozen=True)
class Benchmark:
    """What a comparison of encoders found.

    Attributes
    ----------
    subject
        Whose responses.
    note
        What a reader must know of the images and responses.
    curve
        Of `scaling_curve`.
    n_voxels
        That the means are over.
    ceiling
        Mean noise ceiling of EV over voxels, or None.
    simulation
        Whether responses are those of `benchmark_simulation`.
    features_provenance
        Of the images' features.
    regions
        EV per encoder, number of images and region, of `braincorl.analysis.scaling.summarize_regions`, or None.
    inputs
        Files, seed and other options that it was made from, JSON-serialisable.
    """

    subject: str
    note: str
    curve: pd.DataFrame
    n_voxels: int
    ceiling: float | None = None
    simulation: bool = False
    features_provenance: dict[str, Any] = field(default_factory=dict)
    regions: pd.DataFrame | None = None
    inputs: dict[str, Any] = field(default_factory=dict)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Mean ± spread over draws, encoders by numbers of images, of "EV", "r" and "seconds per fit"; text."""
        columns = {label: self.curve.rename(columns={column: label}) for column, label in SHOWN.items()}
        return {label: summarize_curve(curve, label) for label, curve in columns.items()}

    @own_style
    def plot(self) -> Figure:
        """Draw EV, r and time against the number of context images."""
        figure = new_figure(14, 4)
        panels = figure.subplots(1, 3)
        labels = {"ev": "explained variance", "r": "r", "seconds": "seconds per fit"}
        for axes, (column, label) in zip(panels, labels.items(), strict=True):
            ceiling = self.ceiling if column == "ev" else None
            plot_scaling(axes, self.curve.rename(columns={column: "score"}), label, ceiling)
        panels[2].set_yscale("log")
        figure.suptitle("Simulation" if self.simulation else self.note, x=0.02, ha="left", fontsize=10)
        figure.tight_layout()
        return figure

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write tables, facts and figure to a folder, whole or not at all.

        Raises
        ------
        OutputError
            If the folder is taken or cannot be written; nothing has changed then.
        """
        with staged_directory(path, overwrite=overwrite, kind="benchmark") as folder:
            save_figure(self.plot(), folder / "figure.png")
            self.curve.to_csv(folder / "scores.tsv", sep="\t", index=False, float_format="%.6g")
            if self.regions is not None:
                self.regions.to_csv(folder / "regions.tsv", sep="\t", index=False, float_format="%.6g", na_rep="n/a")
            facts = {name: value for name, value in asdict(self).items() if name not in ("curve", "regions")}
            write_json(folder / "config.json", {"braincorl": __version__, **facts})
            write_description(folder, "Comparison of encoders", self.note)


@dataclass(frozen=True)
class _Task:
    """What the encoders are compared on.

    Attributes
    ----------
    X, y
        Features and responses that contexts are drawn from.
    X_test, y_test
        Images to score on.
    pool
        Features of any images but the test's.
    rois
        Region name -> bool (n_voxels,).
    about
        Of `Benchmark`: `subject`, `note`, `ceiling`, `simulation`, `features_provenance`.
    arguments
        Encoder name -> further arguments of its `fit`.
    """

    X: Array
    y: Array
    X_test: Array
    y_test: Array
    pool: Array
    rois: Mapping[str, npt.NDArray[np.bool_]]
    about: Mapping[str, Any]
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def benchmark_person(
    subject: SubjectData,
    features: FeatureTable,
    encoders: Makers | None = None,
    *,
    test: str | Path | Iterable[str] | None = None,
    counts: Sequence[int] | None = None,
    n_draws: int = 5,
    random_state: int = 0,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Compare encoders on one person's responses to images that none is fitted on.

    Parameters
    ----------
    subject
        Responses, as `load_subject` gives them.
    features
        Of at least these images.
    encoders
        Name -> encoder, or a function that makes one; by default all that need nothing but data.
    test
        Images to score on, or a text file that names one per line; by default those shown more than once if others
        were not, else a random quarter.
    counts
        Numbers of context images; by default 10, 20, 50, 100 as far as there are, and all.
    n_draws
        Random contexts per number.
    random_state
        Seed of the first.
    notes
        What config.json is to say besides, JSON-serialisable, such as where the responses come from.
    progress
        Called with (fits done, fits).

    Returns
    -------
    Benchmark
        With `tables()`, `plot()`, `save(folder)`.

    Raises
    ------
    InputError
        If a number of images is impossible, too few are left, or a prior is of another feature space.
    """
    own, tested, how = _split(subject, features, test, random_state)
    X, held_out = features.features[features.rows(own)], subject.select_images(tested)
    check_features_vary(X)
    makers: Makers = ENCODERS if encoders is None else encoders
    ceiling = held_out.noise_ceiling()
    task = _Task(
        X=X,
        y=subject.select_images(own).responses,
        X_test=features.features[features.rows(tested)],
        y_test=held_out.responses,
        pool=pool_without(features, tested),
        rois=subject.rois,
        about={
            "subject": subject.name,
            "note": f"{subject.name}: scored on {tested.size} images, {how}; contexts drawn from {own.size} others.",
            "ceiling": None if ceiling is None else mean_over_voxels(ceiling),
            "features_provenance": dict(features.provenance),
        },
        arguments={name: fit_arguments(made(maker), features, subject) for name, maker in makers.items()},
    )
    return _compare(makers, task, counts, n_draws, random_state, notes, progress)


def benchmark_simulation(
    encoders: Makers | None = None,
    *,
    learn_prior: bool = True,
    counts: Sequence[int] | None = None,
    n_draws: int = 5,
    random_state: int = 0,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Compare encoders on a simulated person, against the noise-free truth.

    Parameters
    ----------
    encoders
        Name -> encoder, or a function that makes one; by default all that need nothing but data.
    learn_prior
        Also compare a group prior that is learned from two other simulated people.
    counts, n_draws, random_state, notes, progress
        As in `benchmark_person`; `random_state` is also the seed of the simulation.

    Returns
    -------
    Benchmark

    Raises
    ------
    InputError
        If a number of images is impossible.
    """
    world = simulate_people(3 if learn_prior else 1, random_state=random_state)
    pool = world.features[~np.isin(world.image_ids, world.shared)]
    people = []
    for person in world.people:
        subject = person.subject()
        own = subject.select_images(subject.image_ids[~np.isin(subject.image_ids, world.shared)])
        people.append((world.features_of(own.image_ids), own.responses))
    makers = dict(ENCODERS if encoders is None else encoders)
    if learn_prior:
        prior = GroupPrior.fit(people[1:], X_pool=pool)
        makers[PRIOR_ENCODER] = partial(GroupPriorEncoder, prior)
    queries, first = world.features_of(world.shared), world.people[0]
    about = {"subject": "simulation", "note": SIMULATION, "simulation": True}
    task = _Task(*people[0], queries, first.true_responses(queries), pool, first.subject().rois, about)
    return _compare(makers, task, counts, n_draws, random_state, notes, progress)


def _compare(
    makers: Makers,
    task: _Task,
    counts: Sequence[int] | None,
    n_draws: int,
    random_state: int,
    notes: Mapping[str, Any] | None,
    progress: Progress | None,
) -> Benchmark:
    """Fit and score every encoder, and note everything that another run needs to find the same."""
    n_images = len(task.X)
    numbers = list(counts) if counts else [*(n for n in COUNTS if n < n_images), n_images]
    if max(numbers) > n_images:
        raise InputError(
            f"counts asks for {max(numbers)} context images, but besides the test's there are {n_images}: ask for "
            "fewer, or score on fewer with test."
        )
    ev: dict[tuple[str, int], list[Array]] = {}
    curve = scaling_curve(
        makers,
        task.X,
        task.y,
        numbers,
        n_draws,
        X_test=task.X_test,
        y_test=task.y_test,
        X_pool=task.pool,
        fit_arguments=task.arguments,
        random_state=random_state,
        progress=progress,
        keep=lambda name, n, values: ev.setdefault((name, n), []).append(values),
    )
    inputs = {
        **(notes or {}),
        "encoders": list(makers),
        "counts": numbers,
        "n_draws": n_draws,
        "n_test": len(task.X_test),
        "random_state": random_state,
        "responses_sha256": hash_responses(np.concatenate([task.y, task.y_test])),
    }
    regions = summarize_regions(ev, task.rois) if task.rois else None
    return Benchmark(curve=curve, n_voxels=task.y.shape[1], regions=regions, inputs=inputs, **task.about)


def _split(
    subject: SubjectData, table: FeatureTable, test: str | Path | Iterable[str] | None, random_state: int
) -> tuple[Names, Names, str]:
    """Images to fit on, images to score on, and how they were chosen."""
    images = subject.image_ids
    if test is not None:
        file = Path(test) if isinstance(test, str | Path) else None
        named = map(str, test) if file is None else read_names(file)  # type: ignore[arg-type]
        chosen = np.asarray(list(dict.fromkeys(named)))
        subject.select_images(chosen)  # refuses unknown names
        own, how = images[~np.isin(images, chosen)], f"those of {'a list' if file is None else file.name}"
    elif (subject.n_repeats > 1).any() and (subject.n_repeats == 1).sum() >= 2:
        own, chosen = split_repeated(subject)
        how = "those shown more than once"
    else:
        order = np.random.default_rng(random_state).permutation(np.sort(images))
        n_test = max(2, round(TEST_SHARE * images.size))
        chosen, own, how = order[:n_test], order[n_test:], "drawn at random"
    chosen = without_copies(table, own, chosen)
    if own.size < 2 or chosen.size < 2:
        raise InputError(f"{own.size} images to fit on and {chosen.size} to score on: a comparison needs 2 of each.")
    return own, chosen, how


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of ours, in which only an empty cell or n/a is missing: a region may be called NA."""
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=["", "n/a"])


def read_benchmark(path: str | Path) -> Benchmark:
    """Read a folder that `braincorl benchmark --output-dir` wrote.

    Raises
    ------
    InputError
        If it is not such a folder.
    """
    path = Path(path)
    tables = {name: path / f"{name}.tsv" for name in ("scores", "regions")}
    if not tables["scores"].is_file():
        raise InputError(f"{path} is no comparison of encoders: pass the --output-dir of braincorl benchmark.")
    if not (path / "config.json").is_file():
        raise InputError(
            f"{path} does not say whose responses it is of (no config.json): run braincorl benchmark again."
        )
    config = read_json(path / "config.json")
    config.pop("braincorl", None)
    for name, kind in {"subject": str, "note": str, "features_provenance": dict, "inputs": dict}.items():
        if not isinstance(config.get(name, kind()), kind):
            raise InputError(f"{path}, config.json: '{name}' is {config[name]!r}, expected a {kind.__name__}.")
    try:
        curve = read_table(tables["scores"])
        regions = read_table(tables["regions"]) if tables["regions"].is_file() else None
        benchmark = Benchmark(curve=curve, regions=regions, **config)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is no comparison of encoders ({error}): run braincorl benchmark again.") from error
    missing = sorted(COLUMNS - set(curve.columns))
    if missing or curve.empty:
        raise InputError(
            f"{tables['scores']} lacks {missing[0] if missing else 'rows'}: run braincorl benchmark again."
        )
    return benchmark


def find_benchmark(fit: Fit, path: Path | None = None) -> Benchmark | None:
    """Read the comparison of encoders that belongs to a fit, by default that in its folder; None if there is none.

    Raises
    ------
    InputError
        If it is of another person or feature space.
    """
    if path is None:
        path = fit.beside("benchmark")
        if path is None:
            return None
        if not (path / "config.json").is_file():  # as an earlier version wrote it: a report does without
            logger.warning(
                "%s is left out: it does not say whose responses it is of; run braincorl benchmark again", path
            )
            return None
    found = read_benchmark(path)
    if found.subject != fit.config["subject"] or (found.simulation and not fit.config.get("simulation")):
        raise InputError(
            f"{path} compares encoders on {found.subject}, but the fit is of {fit.config['subject']}: run braincorl "
            "benchmark on the data of the fit."
        )
    check_same_space(found.features_provenance, fit.config["features_provenance"], fit.title)
    return found
