"""`Scored`: a fit held against responses to images that it has not seen, to look at or to keep in a folder."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braincorl import __version__
from braincorl.datasets import SubjectData
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.fits.fitted import Fitted
from braincorl.fits.folder import hash_responses, write_description, write_maps, write_partition
from braincorl.fits.maps import Outside
from braincorl.fits.scores import Scores, encoder_partition, encoder_significance, score_encoder, summarize_rois
from braincorl.fits.seen_images import check_features_fit, seen_by
from braincorl.questions.partition import VariancePartition
from braincorl.questions.permutation import FALSE_DISCOVERIES, PermutationTest, log10_orders
from braincorl.storage.files import Progress, write_json
from braincorl.storage.result_folders import staged_directory

logger = logging.getLogger(__name__)

SIGNIFICANCE = ("p", "q", "pfamilywise")
UNNAMED = SubjectData.name  # of a person whose files do not say


@dataclass(frozen=True)
class Scored:
    """Scores of a fit on images that it has not seen; made by `Fit.score`.

    Attributes
    ----------
    fit
        What was scored.
    maps
        Name -> (n_voxels,): `ev`, `r2`, `r`; where noise is known `noiseceiling`, `evnormalized`, `rnormalized`.
    held_out
        The responses that count.
    config
        Options and counts, JSON-serialisable.
    tested
        The held-out images against random orders of them, where asked for; `maps` then has `p`, `q`, `pfamilywise`.
    partition
        What each feature space explains, of an encoder of several.
    """

    fit: Fitted
    maps: Scores
    held_out: SubjectData
    config: Mapping[str, Any] = field(default_factory=dict)
    tested: PermutationTest | None = None
    partition: VariancePartition | None = None

    def __str__(self) -> str:
        """Say in one line what holds for all voxels."""
        return describe(self.maps, self.held_out.n_images)

    def table(self, n_bootstrap: int = 0) -> pd.DataFrame:
        """Means over all voxels and per region; with bootstrap samples also 95 % intervals: see `summarize_rois`."""
        scores = {name: values for name, values in self.maps.items() if name not in SIGNIFICANCE}
        table = summarize_rois(scores, self.fit.rois, n_bootstrap)
        if self.tested is not None:
            table["r_p"] = [self.tested.p_regions[name] for name in table["roi"]]
        return table

    def save(
        self, path: str | Path, *, n_bootstrap: int = 0, overwrite: bool = False, outside: Outside = "nan"
    ) -> None:
        """Write maps, scores.tsv and config.json to a folder, whole or not at all.

        Parameters
        ----------
        path
            Folder that does not exist yet, or (with `overwrite`) holds earlier scores.
        n_bootstrap
            Bootstrap samples for intervals in scores.tsv; 0 for none.
        overwrite
            Replace earlier scores.
        outside
            What voxels outside the mask get in maps.

        Raises
        ------
        OutputError
            If the folder is taken or cannot be written; nothing has changed then.
        """
        with staged_directory(path, overwrite=overwrite, kind="score") as folder:
            write_maps(folder, self.fit.config["prefix"], self.maps, self.fit.space, outside)
            if self.partition is not None:
                write_partition(folder, self.fit.config["prefix"], self.partition, self.fit.space, outside)
            self.table(n_bootstrap).to_csv(folder / "scores.tsv", sep="\t", index=False, na_rep="n/a")
            facts = {**self.fit.identity(), **self.config, "n_bootstrap": n_bootstrap}
            write_json(folder / "config.json", {"braincorl": __version__, **facts})
            write_description(folder, "Scores of a voxelwise encoder")


def score_fit(
    fit: Fitted,
    subject: SubjectData,
    features: FeatureTable,
    *,
    min_ceiling: float = 0.1,
    any_scaling: bool = False,
    n_permutations: int = 0,
    random_state: int = 0,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Score on images that the fit has not seen; those that it has, under whatever name, are left out.

    Parameters
    ----------
    subject
        Responses, read with the fit's mask: `load_subject(..., mask=fit.grid)`.
    features
        Of these images, of the fit's feature space.
    min_ceiling
        Noise-normalised scores are given where the noise ceiling of R² is at least this.
    any_scaling
        Allow responses that were scaled otherwise than the fit's.
    n_permutations
        Random orders of the images to test every voxel against (`braincorl.questions.permutation`); 0 for no test.
    random_state
        Seed of these.
    notes
        What `Scored.save` is to write into its config.json besides, such as where the responses come from.
    progress
        Of the test: called with (voxels done, voxels).

    Returns
    -------
    Scored
        With `maps`, `table()`, `save(folder)`.

    Raises
    ------
    InputError
        If features, voxels or scaling are not the fit's, or fewer than two images are new to it.
    """
    check_features_fit(fit, features)
    if UNNAMED not in (subject.name, fit.subject) and subject.name != fit.subject:
        logger.warning("the betas are of %s, but the fit is of %s", subject.name, fit.subject)
    _check_scaling(fit, subject, any_scaling=any_scaling)
    unseen = subject.image_ids[~seen_by(fit, features, subject.image_ids)]
    if unseen.size < subject.n_images:
        logger.warning("%d images that the fit has seen are left out of the score", subject.n_images - unseen.size)
    if unseen.size < 2:
        raise InputError(
            f"{unseen.size} of {subject.n_images} images are new to the fit, but a score needs at least 2: "
            "score on other images, or fit on fewer with --n-context."
        )
    held_out = subject.select_images(unseen)
    X = features.features[features.rows(unseen)]
    maps = score_encoder(fit.encoder, fit.space, X, held_out, min_ceiling)
    tested = None
    if n_permutations:
        _warn_of_few_orders(held_out, n_permutations)
        tested = encoder_significance(
            fit.encoder, fit.space, X, held_out, n_permutations, fit.rois, random_state, progress=progress
        )
        maps |= dict(zip(SIGNIFICANCE, (tested.p, tested.q, tested.p_family), strict=True))
    partition = encoder_partition(fit.encoder, fit.space, X, held_out, fit.rois, progress)
    config = {
        **(notes or {}),
        "features_provenance": dict(features.provenance),
        "betas_subject": subject.name,
        "zscore": subject.zscore,
        "min_ceiling": min_ceiling,
        "n_permutations": n_permutations,
        "random_state": random_state if n_permutations else None,
        "n_images": held_out.n_images,
        "n_seen": subject.n_images - held_out.n_images,
        "responses_sha256": hash_responses(held_out.responses),
    }
    return Scored(fit, maps, held_out, config, tested, partition)


def _warn_of_few_orders(held_out: SubjectData, n_permutations: int) -> None:
    possible = log10_orders(held_out.n_repeats)
    if 10**possible < 1 + n_permutations:
        logger.warning(
            "the %d images, exchanged among those of as many trials, have only %.0f different orders: no p can be "
            "below %.2g",
            held_out.n_images,
            10**possible,
            10**-possible,
        )


def _check_scaling(fit: Fitted, subject: SubjectData, *, any_scaling: bool) -> None:
    """Refuse responses in other units than the fit's, unless that is wanted."""
    expected = fit.config["zscore"]
    if subject.zscore == expected:
        return
    what = f"the responses are scaled '{subject.zscore}', but {fit.title} was made from '{expected}' (--zscore)"
    if not any_scaling:
        raise InputError(f"{what}: score on responses that are scaled like those of the fit, or fit again.")
    logger.warning("%s", what)


def describe(scores: Scores, n_images: int) -> str:
    """Say in one line what holds for all voxels."""
    if not np.isfinite(scores["ev"]).any():
        return f"{n_images} held-out images: no scores, because the responses to them are constant in every voxel"
    parts = [
        f"mean {label} {np.nanmean(scores[name]):.3f}"
        for name, label in (("ev", "EV"), ("r2", "R²"), ("r", "r"))
        if np.isfinite(scores[name]).any()
    ]
    if "noiseceiling" in scores and np.isfinite(scores["noiseceiling"]).any():
        parts.append(f"noise ceiling {np.nanmean(scores['noiseceiling']):.3f}")
        reliable = np.isfinite(scores["evnormalized"])
        if reliable.any():
            normalized = np.nanmean(scores["evnormalized"])
            parts.append(f"EV / ceiling {normalized:.3f} in {int(reliable.sum())} reliable voxels")
    return f"{n_images} held-out images: " + ", ".join(parts)


def describe_partition(partition: VariancePartition) -> str:
    """Say in one line what each space explains, mean over voxels."""
    rows = partition.regions[partition.regions["roi"] == "all"]
    mean = dict(zip(zip(rows["part"], rows["space"], strict=True), rows["mean"].tolist(), strict=True))
    parts = [f"{name} {mean['share', name]:.3f} (unique {mean['unique', name]:.3f})" for name in partition.spaces]
    return f"EV by feature space: {', '.join(parts)}; not unique to one {mean['shared', 'all']:.3f}"


def describe_test(test: PermutationTest) -> str:
    """Say in one line how many voxels are predicted better than chance."""
    n_tested, n_found = int(np.isfinite(test.p).sum()), int((test.q < FALSE_DISCOVERIES).sum())
    return (
        f"{n_found} of {n_tested} voxels are predicted better than chance (q < {FALSE_DISCOVERIES}, "
        f"{test.n_permutations} permutations of the images)"
    )
