"""Two fits of one person beside one another, on images that neither has seen: maps, a table per region, a page.

found = compare_fits(Fit.load("alexnet"), Fit.load("word2vec"))
found.save("compared")
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl import __version__
from braincorl.analysis.maps.surface_plots import plot_in_own_space
from braincorl.analysis.question_figures import plot_comparison
from braincorl.analysis.report.page import SIMULATION, Section, write_page
from braincorl.datasets import SubjectData
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.fits import Fit
from braincorl.fits.folder import hash_responses, write_description, write_maps
from braincorl.fits.maps import Outside
from braincorl.fits.recorded import recorded_features, recorded_responses
from braincorl.fits.scores import common_voxels, predict_exactly
from braincorl.fits.seen_images import check_features_fit, seen_by
from braincorl.questions.comparison import Comparison, compare_predictions
from braincorl.questions.permutation import FALSE_DISCOVERIES
from braincorl.storage.files import Progress, write_json
from braincorl.storage.result_folders import staged_directory

logger = logging.getLogger(__name__)

FEWEST_IMAGES = 2  # of one image there is no variance to explain


@dataclass(frozen=True)
class FitComparison:
    """What `compare_fits` found.

    Attributes
    ----------
    fits
        Both, the first being A.
    result
        Maps and the table per region.
    n_images
        That neither fit has seen.
    config
        What it was made from, for config.json.
    """

    fits: tuple[Fit, Fit]
    result: Comparison
    n_images: int
    config: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say in one line what holds for all voxels."""
        row = self.result.regions.iloc[0]
        return (
            f"{self.n_images} held-out images: mean EV {row['ev_a']:.3f} and {row['ev_b']:.3f}, difference "
            f"{row['difference']:.3f} (95 % interval {row['low']:.3f} to {row['high']:.3f}, p = {row['p']:.2g}); at q "
            f"< {FALSE_DISCOVERIES}, the first is better in {row['n_a_better']} voxels and the second in "
            f"{row['n_b_better']}"
        )

    @property
    def names(self) -> list[str]:
        """What the fits are called in figures and pages."""
        return [_name(fit) for fit in self.fits]

    def save(self, path: str | Path, *, overwrite: bool = False, outside: Outside = "nan") -> None:
        """Write maps, comparison.tsv, config.json and a page to a folder, whole or not at all.

        Parameters
        ----------
        path
            Folder that does not exist yet, or (with `overwrite`) holds an earlier comparison.
        overwrite
            Replace an earlier one.
        outside
            What voxels outside the mask get in maps.

        Raises
        ------
        OutputError
            If the folder is taken or cannot be written; nothing has changed then.
        """
        first, found = self.fits[0], self.result
        with staged_directory(path, overwrite=overwrite, kind="comparison") as folder:
            maps = {"evdifference": found.difference, "pdifference": found.p, "qdifference": found.q}
            write_maps(folder, first.config["prefix"], maps, first.space, outside)
            found.regions.to_csv(folder / "comparison.tsv", sep="\t", index=False, na_rep="n/a")
            write_json(folder / "config.json", {"braincorl": __version__, **self.config})
            self._write_page(folder / "report.html")
            write_description(folder, "Two voxelwise encoders compared")

    def _write_page(self, path: Path) -> None:
        (first, second), result, names = self.fits, self.result, self.names
        figure = plot_comparison(result.ev_a, result.ev_b, result.regions, names)
        drawn = plot_in_own_space(
            result.difference, first.space, label="difference in EV", signed=True, rois=first.rois
        )
        difference = None if drawn is None else {"figure": drawn, "names": names}
        table = result.regions.rename(columns={"roi": "region", "n_voxels": "voxels"})
        paths = {"First": f"{names[0]}, {first.path}", "Second": f"{names[1]}, {second.path}"}
        write_page(
            path,
            f"{first.subject}: two encoders",
            str(self),
            [
                Section("Difference", "comparison/difference.html", {"figure": figure, "n_images": self.n_images}),
                Section("Map", "comparison/map.html", difference),
                Section("Regions", "comparison/regions.html", {"table": table, "false_discoveries": FALSE_DISCOVERIES}),
                Section("Fits", "comparison/fits.html", {"fits": paths}),
            ],
            [SIMULATION] if first.config.get("simulation") else [],
        )


def compare_fits(
    a: Fit,
    b: Fit,
    subject: SubjectData | None = None,
    features_a: FeatureTable | None = None,
    features_b: FeatureTable | None = None,
    *,
    n_permutations: int = 1000,
    random_state: int = 0,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> FitComparison:
    """Compare two fits of one person (two backbones, layers, encoders) on images that neither has seen.

    Parameters
    ----------
    a, b
        Of the same responses and mask.
    subject
        Responses, read with the first fit's mask: `load_subject(..., mask=a.grid)`; by default those that it was made
        from.
    features_a, features_b
        Of these images, of each fit's feature space; by default those that the fits were made from.
    n_permutations
        Random changes of places of the two fits in images, for p and q.
    random_state
        Seed of these.
    notes
        What config.json is to say besides, such as where the responses come from.
    progress
        Called with (voxels done, voxels).

    Returns
    -------
    FitComparison
        With `result` (maps, table), `save(folder)`; prints as one line.

    Raises
    ------
    InputError
        If the fits are of different people or scalings, features are of another space, too few images are new, or what
        a fit was made from is not there any more.
    """
    check_same_person(a, b)
    table_a = recorded_features(a, "features_a") if features_a is None else features_a
    table_b = recorded_features(b, "features_b") if features_b is None else features_b
    if subject is None:
        subject = recorded_responses(a, table_a, "subject", as_fitted=features_a is None)
    fits, tables = (a, b), (table_a, table_b)
    for fit, table in zip(fits, tables, strict=True):
        check_features_fit(fit, table)
    held_out = _held_out(fits, tables, subject)
    measured, predicted = _side_by_side(fits, tables, held_out)
    result = compare_predictions(
        measured,
        *predicted,
        rois=a.rois,
        n_permutations=n_permutations,
        random_state=random_state,
        progress=progress,
    )
    config = {
        **a.identity(),
        "other_fit": b.identity(),
        "features_provenance": [dict(table.provenance) for table in tables],
        **(notes or {}),
        "n_images": held_out.n_images,
        "n_permutations": n_permutations,
        "random_state": random_state,
        "responses_sha256": hash_responses(held_out.responses),
    }
    return FitComparison(fits, result, held_out.n_images, config)


def check_same_person(a: Fit, b: Fit) -> None:
    """Refuse fits that are not of the same responses.

    Raises
    ------
    InputError
        If person, scaling or grid differ.
    """
    for key, what in (("subject", "people"), ("zscore", "scalings of the responses")):
        if a.config[key] != b.config[key]:
            raise InputError(
                f"{a.path} and {b.path} are of different {what} ('{a.config[key]}', '{b.config[key]}'): compare two "
                "fits of the same responses."
            )
    common_voxels(a.space, b.space)
    if a.encoder.coef_.shape == b.encoder.coef_.shape and np.array_equal(a.encoder.coef_, b.encoder.coef_):
        logger.warning("%s and %s hold the same encoder, so no difference will be found", a.path, b.path)


def _held_out(fits: tuple[Fit, Fit], tables: tuple[FeatureTable, FeatureTable], subject: SubjectData) -> SubjectData:
    """Responses to the images that have features in both spaces and that neither fit has seen."""
    both = subject.image_ids[np.isin(subject.image_ids, tables[1].image_ids)]
    seen = np.zeros(both.size, dtype=bool)
    for fit, table in zip(fits, tables, strict=True):
        seen |= seen_by(fit, table, both)
    if both.size - int(seen.sum()) < FEWEST_IMAGES:
        raise InputError(
            f"{both.size - int(seen.sum())} of {subject.n_images} images have features of both fits and are new to "
            f"both, but a comparison needs at least {FEWEST_IMAGES}: fit both on the same --context list, leaving "
            "images out."
        )
    if seen.any():
        logger.info("%d images that a fit has seen are left out of the comparison", int(seen.sum()))
    return subject.select_images(both[~seen])


def _side_by_side(
    fits: tuple[Fit, Fit], tables: tuple[FeatureTable, FeatureTable], held_out: SubjectData
) -> tuple[npt.NDArray[Any], list[npt.NDArray[np.float64]]]:
    """Measured responses and both predictions over the voxels of the first fit, NaN where one has none."""
    space = fits[0].space
    measured = np.full((held_out.n_images, space.n_voxels), np.nan)
    ours, theirs = common_voxels(space, held_out.space)
    measured[:, ours] = held_out.responses[:, theirs]
    shared, of_b = common_voxels(space, fits[1].space)
    alone = np.setdiff1d(np.arange(space.n_voxels), shared)
    measured[:, alone] = np.nan
    features = [table.features[table.rows(held_out.image_ids)] for table in tables]
    first = predict_exactly(fits[0].encoder, features[0])
    second = np.zeros_like(first)
    second[:, shared] = predict_exactly(fits[1].encoder, features[1], of_b)
    return measured, [first, second]


def _name(fit: Fit) -> str:
    """Name of a fit's folder, and of what it was made with."""
    name = fit.subject if fit.path is None else fit.path.resolve().name
    return f"{name} ({fit.config.get('encoder', type(fit.encoder).__name__)})"
