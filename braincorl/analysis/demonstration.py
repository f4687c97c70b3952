"""The whole road on simulated people: every encoder from few images, a fit, maps, a figure and a page; no data needed.

shown = demonstrate("demo")
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braincorl import __version__
from braincorl.analysis.figures import new_figure, own_style, plot_scaling, save_figure
from braincorl.analysis.maps.surface_plots import draw_surface
from braincorl.analysis.maps.volume_plots import add_legend
from braincorl.analysis.report.fit_report import ReportOptions, find_warnings, fit_sections
from braincorl.analysis.report.page import Section, write_page
from braincorl.analysis.scaling import scaling_curve, summarize_curve
from braincorl.datasets import simulate_people
from braincorl.datasets.simulation import SimulatedPeople, SimulatedPerson
from braincorl.encoders.choice import ENCODERS
from braincorl.features import FeatureTable, save_features
from braincorl.fits import Fit, fit_person
from braincorl.fits.fit import write_fit
from braincorl.fits.folder import write_description
from braincorl.fits.maps import Outside
from braincorl.fits.methods import collect_maps
from braincorl.fits.scores import Scores
from braincorl.storage.files import Progress
from braincorl.storage.result_folders import check_destination, staged_directory

N_CONTEXT = (10, 20, 50, 100)  # as `benchmark` counts
NOTE = (
    "SIMULATION: these responses were drawn from known encoders, no brain was measured. "
    "Explained variance (EV) against the truth is that of noise-free responses to 100 images that no encoder was "
    "fitted on; 1 would be perfect."
)
MEASURED = (
    "EV of measured responses, in all that follows the comparison, is that of noisy responses to the same images: no "
    "encoder can pass their noise ceiling."
)
TRUTH = "EV against the truth"
VIEWS = ("lateral left", "ventral left", "ventral right", "lateral right")
OUTLINED = ("EarlyVis", "LOC", "FFA", "EBA", "PPA")  # that these views show


@dataclass(frozen=True)
class Demonstration:
    """What the encoders reached on a simulated person.

    Attributes
    ----------
    scores
        Mean EV against the truth: columns `encoder`, `n_context`, `draw`, `score`.
    n_voxels
        That the means are over.
    note
        What a reader must know: that no brain was measured.
    """

    scores: pd.DataFrame
    n_voxels: int
    note: str = NOTE

    def table(self) -> pd.DataFrame:
        """Mean ± spread over draws, encoders by numbers of images; text."""
        return summarize_curve(self.scores.rename(columns={"score": TRUTH}), TRUTH)


def demonstrate(
    path: str | Path,
    *,
    n_draws: int = 5,
    random_state: int = 0,
    overwrite: bool = False,
    outside: Outside = "nan",
    progress: Progress | None = None,
) -> Demonstration:
    """Simulate a person with a known truth, fit every encoder from few images, and write maps and a report.

    Parameters
    ----------
    path
        Folder that does not exist yet, or (with `overwrite`) holds an earlier demonstration.
    n_draws
        Random contexts per number of images.
    random_state
        Seed of the simulation.
    overwrite
        Replace an earlier one.
    outside
        What voxels outside the mask get in maps.
    progress
        Called with (fits done, fits).

    Returns
    -------
    Demonstration

    Raises
    ------
    OutputError
        If the folder is taken or cannot be written; nothing has changed then.
    """
    check_destination(path, overwrite=overwrite, kind="demo")  # before the work, not after it
    world = simulate_people(1, layout="sheet", random_state=random_state)
    person = world.people[0]
    table = FeatureTable(world.features, world.image_ids, {"backbone": "simulation", "normalized": True})
    shown = Demonstration(_compare(world, person, n_draws, progress), person.space.n_voxels)
    with staged_directory(path, overwrite=overwrite, kind="demo") as folder:
        inputs = folder / "simulated"
        inputs.mkdir()
        save_features(inputs / "features.npz", table)
        person.write(inputs)
        fit = _write_example_fit(folder / "fit", world, table, outside)
        shown.scores.to_csv(folder / "scores.tsv", sep="\t", index=False)
        _draw(folder / "figure.png", shown.scores, fit.scores, person)
        _write_page(folder, shown, table, Path(path))
        write_description(folder, "Demonstration on simulated people", NOTE)
    return shown


def _compare(world: SimulatedPeople, person: SimulatedPerson, n_draws: int, progress: Progress | None) -> pd.DataFrame:
    """Mean EV against the truth of every encoder, at every number of images, for several draws of them."""
    subject = person.subject()
    own = subject.select_images(subject.image_ids[~np.isin(subject.image_ids, world.shared)])
    queries = world.features_of(world.shared)
    curve = scaling_curve(
        ENCODERS,
        world.features_of(own.image_ids),
        own.responses,
        N_CONTEXT,
        n_draws,
        X_test=queries,
        y_test=person.true_responses(queries),
        X_pool=world.features[~np.isin(world.image_ids, world.shared)],  # the images that are scored scale nothing
        progress=progress,
    )
    return curve.rename(columns={"ev": "score"})[["encoder", "n_context", "draw", "score"]]


def _write_example_fit(folder: Path, world: SimulatedPeople, table: FeatureTable, outside: Outside) -> Fit:
    """Do what `braincorl fit --n-context 100` does, on the written inputs' content, and score the shared images."""
    subject = world.people[0].subject()
    own = subject.image_ids[~np.isin(subject.image_ids, world.shared)][: max(N_CONTEXT)]
    fit = fit_person(
        subject.select_images([*own, *world.shared]),
        table,
        context=own,
        prefix=f"{subject.name}_task-simulated",
        notes={"simulation": True},
    )
    folder.mkdir()
    write_fit(folder, fit, outside, NOTE)
    return fit


@own_style
def _draw(path: Path, scores: pd.DataFrame, maps: Scores, person: SimulatedPerson) -> None:
    figure = new_figure(9, 6)
    top = figure.add_axes((0.08, 0.47, 0.9, 0.47))
    plot_scaling(top, scores, TRUTH)
    top.set_title("A simulated person: accuracy from few images", loc="left")
    views = [figure.add_axes((column * 0.23, 0.05, 0.22, 0.3)) for column in range(len(VIEWS))]
    outlined = {name: person.rois[name] for name in OUTLINED}
    mappable = draw_surface(views, VIEWS, maps["ev"], person.space, outlined)
    figure.colorbar(mappable, cax=figure.add_axes((0.94, 0.08, 0.012, 0.24)))
    title = f"EV of measured responses, {max(N_CONTEXT)} context images"
    figure.text(0.08, 0.345, title, fontsize=12, va="bottom")
    add_legend(figure, list(outlined))
    save_figure(figure, path)


@own_style
def _write_page(folder: Path, shown: Demonstration, table: FeatureTable, output_dir: Path) -> None:
    """Write the example fit's report, with the comparison of encoders before it."""
    fit = Fit.load(folder / "fit")
    maps = collect_maps(fit)
    figure = new_figure(6.8, 3.6)
    plot_scaling(figure.subplots(), shown.scores, TRUTH)
    figure.tight_layout()
    write_page(
        folder / "report.html",
        "braincorl on a simulated person",
        f"Below the comparison: an encoder from {len(fit.context)} images",
        [
            Section("Encoders compared", "demo/encoders.html", {"table": shown.table(), "figure": figure}),
            *fit_sections(fit, maps, ReportOptions(features=table)),
            Section("Go on", "demo/go_on.html", _go_on(fit, output_dir)),
        ],
        [NOTE, MEASURED, *find_warnings(fit, maps)[1:]],
    )


def _go_on(fit: Fit, output_dir: Path) -> dict[str, Any]:
    stem = f"{output_dir}/simulated/{fit.subject}_task-simulated"
    n_voxels, n_features = fit.encoder.coef_.shape
    command = (
        f"braincorl fit --features {output_dir}/simulated/features.npz --betas {stem}_stat-effect_statmap.nii.gz "
        f"--trials {stem}_trials.tsv --mask {stem}_desc-cortex_mask.nii.gz "
        f"--rois {stem}_desc-regions_dseg.nii.gz --n-context 100 --output-dir my-fit"
    )
    counts = {"n_voxels": n_voxels, "n_features": n_features, "n_context": len(fit.context)}
    return {**counts, "version": __version__, "command": command}
