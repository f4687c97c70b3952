"""Which image was seen, of some candidates, told from a fit and a person's responses; tables, a page, and the folder.

    told = identify_images(fit, subject, features)
    told.save("identified")

identification.tsv   one row per response: the rank of the image that was seen, the likeliest candidates
accuracy.tsv         accuracy against the number of candidates, with chance levels and intervals, by region
nearest.tsv          words or images nearest to what each response speaks for, where such were given
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl import __version__
from braincorl.analysis.report.identification_report import (
    accuracy_curve,
    accuracy_of_regions,
    nearest_to_seen,
    seen_beside_likeliest,
)
from braincorl.analysis.report.page import SIMULATION, Section, write_page
from braincorl.analysis.report.top_images import Thumbnails
from braincorl.datasets import SubjectData
from braincorl.errors import InputError
from braincorl.features import FeatureTable, save_features
from braincorl.features.store.table import take_rows
from braincorl.fits import Fit
from braincorl.fits.folder import hash_responses, write_description
from braincorl.fits.scores import common_voxels
from braincorl.fits.seen_images import check_features_fit, check_space_fits, seen_by
from braincorl.metrics import trials_per_image
from braincorl.priors.image_digests import image_digests
from braincorl.questions.feature_posterior import feature_posterior
from braincorl.questions.identification import (
    RANKINGS,
    Identification,
    Ranking,
    Spread,
    context_noise,
    identify,
    repeat_noise,
)
from braincorl.questions.noise import NoiseModel
from braincorl.storage.files import write_json
from braincorl.storage.result_folders import staged_directory

logger = logging.getLogger(__name__)

N_BEST = 5  # as the top-5 of image classification
FEWEST_VOXELS = 5  # of a region, to be asked by itself
FEWEST_FOR_NOISE = 5  # context images
FEWEST_IN_POOL = 3  # two images have one direction between them, and no spread of it


@dataclass(frozen=True)
class _Case:
    """What is asked of a fit.

    Attributes
    ----------
    seen
        Image of each response (n,).
    trials
        Names of single trials (n,); None for means over an image's trials.
    responses
        (n, v) of the fit's voxels.
    voxels
        Those that were measured.
    candidates, names
        Features (c, p) and names.
    truth
        Candidate that was seen (n,), -1 where unknown.
    noise
        That voxels share, where it is known.
    noise_ratio
        Noise variance of these responses over that of the context's.
    spread
        Whose predictive deviations count.
    """

    seen: npt.NDArray[np.str_]
    trials: npt.NDArray[np.str_] | None
    responses: npt.NDArray[np.float64]
    voxels: npt.NDArray[np.intp]
    candidates: npt.NDArray[Any]
    names: npt.NDArray[np.str_]
    truth: npt.NDArray[np.intp]
    noise: NoiseModel | None
    noise_ratio: float
    spread: Spread


@dataclass(frozen=True)
class Decoded:
    """What responses speak for: a posterior over features.

    Attributes
    ----------
    table
        One row per response: the candidates that lie nearest, by cosine, with intervals.
    features
        Mean of the posterior.
    settled
        Share of the variance of features over images that a response settles.
    n_candidates
        That `table` chooses from.
    """

    table: pd.DataFrame
    features: FeatureTable
    settled: float
    n_candidates: int

    def __str__(self) -> str:
        """Say in one line how sure it is."""
        return (
            f"a response settles {self.settled:.0%} of the variance of features over images; of {self.n_candidates} "
            f"candidates the nearest is so in {self.table['probability1'].mean():.0%} of the posterior's draws (mean "
            "over responses)"
        )


@dataclass(frozen=True)
class ImagesTold:
    """What `identify_images` found.

    Attributes
    ----------
    fit
        That was asked.
    found
        Log likelihoods of all candidates, by the ranking that was chosen.
    ranks
        One row per response: the rank of what was seen, where that is known, and the likeliest candidates.
    accuracy
        Against the number of candidates, by region and ranking; None where nothing that was seen is a candidate.
    decoded
        What else the responses speak for, or None.
    n_candidates
        Their number.
    single_trials
        Whether responses are single trials, not means over an image's.
    config
        What it was made from, for config.json.
    """

    fit: Fit
    found: Identification
    ranks: pd.DataFrame
    accuracy: pd.DataFrame | None
    decoded: Decoded | None
    n_candidates: int
    single_trials: bool
    config: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Say in one line how well the seen images are told."""
        kind = "single trials" if self.single_trials else "responses"
        what = f"{len(self.ranks)} {kind}, {self.n_candidates} candidates"
        if self.accuracy is None:
            return what
        whole = (self.accuracy["roi"] == "all") & (self.accuracy["ranking"] == self.found.ranking)
        row = self.accuracy[whole].iloc[-1]
        return (
            f"{what}: the seen image is first in {row['top1']:.1%} (95 % interval {row['top1_low']:.1%} to "
            f"{row['top1_high']:.1%}, chance {row['top1_chance']:.1%}) and among the best 5 in {row['top5']:.1%} "
            f"(chance {row['top5_chance']:.1%}); median rank {row['median_rank']:.0f}"
        )

    def save(self, path: str | Path, *, images: str | Path | None = None, overwrite: bool = False) -> None:
        """Write tables, config.json and a page to a folder, whole or not at all.

        Parameters
        ----------
        path
            Folder that does not exist yet, or (with `overwrite`) holds an earlier identification.
        images
            Folder or HDF5 file with the images, to show them.
        overwrite
            Replace an earlier one.

        Raises
        ------
        InputError
            If there are no such images.
        OutputError
            If the folder is taken or cannot be written; nothing has changed then.
        """
        thumbnails = None if images is None else Thumbnails.of(Path(images))
        with staged_directory(path, overwrite=overwrite, kind="identification") as folder:
            self.ranks.to_csv(folder / "identification.tsv", sep="\t", index=False, na_rep="n/a")
            if self.accuracy is not None:
                self.accuracy.to_csv(folder / "accuracy.tsv", sep="\t", index=False, na_rep="n/a")
            if self.decoded is not None:
                table = self.decoded.table
                table.to_csv(folder / "nearest.tsv", sep="\t", index=False, na_rep="n/a", float_format="%.4g")
                save_features(folder / "decoded_features.npz", self.decoded.features)
            write_json(folder / "config.json", {"braincorl": __version__, **self.config})
            self._write_page(folder / "report.html", thumbnails)
            write_description(folder, "Images identified from responses")

    def _write_page(self, path: Path, thumbnails: Thumbnails | None) -> None:
        curve = regions = near = None
        if self.accuracy is not None:
            curve = accuracy_curve(self.accuracy, len(self.ranks))
            regions = accuracy_of_regions(self.accuracy, self.found.ranking)
        if self.decoded is not None:
            near = nearest_to_seen(self.decoded.table, str(self.decoded))
        seen = seen_beside_likeliest(self.ranks, self.n_candidates, thumbnails)
        write_page(
            path,
            f"{self.fit.subject}: what was seen",
            str(self),
            [
                Section("Accuracy", "identification/accuracy.html", curve),
                Section("Regions", "identification/regions.html", regions),
                Section("Seen and best-ranked", "identification/seen.html", seen),
                Section("Nearest", "identification/nearest.html", near),
            ],
            [SIMULATION] if self.fit.config.get("simulation") else [],
        )


def identify_images(
    fit: Fit,
    subject: SubjectData,
    features: FeatureTable,
    *,
    words: FeatureTable | None = None,
    nearest: FeatureTable | None = None,
    shown: Mapping[str, str] | None = None,
    ranking: Ranking = "independent",
    spread: Spread = "mean",
    notes: Mapping[str, Any] | None = None,
) -> ImagesTold:
    """Rank candidate images, or words, by how likely they make each measured response.

    Parameters
    ----------
    fit
        The fit.
    subject
        Responses, read with the fit's mask and scaling: `load_subject(..., mask=fit.grid)`. Those to images that the
        fit has seen say how noisy the person is, and are not asked about.
    features
        Of these images, and of other candidates.
    words
        Features of words of the same space, to be ranked in place of images.
    nearest
        Features of words or images of the same space, of which the nearest to what was seen are wanted besides; what
        was seen need not be among them.
    shown
        Where responses are of single trials: name of the trial -> image, as `Recording.trial_by_trial` says.
    ranking
        "independent": as if voxels shared no noise; "shared": voxels are weighed by the noise that they share;
        "correlation": of measured and predicted patterns over voxels.
    spread
        Predictive deviations of voxels: their "mean" over candidates, or each "candidate"'s own.
    notes
        What config.json is to say besides, such as where the responses come from.

    Returns
    -------
    ImagesTold
        With `ranks`, `accuracy`, `decoded`, `save(folder)`; prints as one line.

    Raises
    ------
    InputError
        If features are of another space, the fit has seen all images, or fewer than 2 candidates are left.
    """
    check_features_fit(fit, features)
    for table in (words, nearest):
        if table is not None:
            check_space_fits(fit, table)
    case = _case(fit, subject, features, words, shown, spread)
    asked: set[Ranking] = {"independent", ranking}
    if words is None:
        asked |= {"correlation"} if case.noise is None else {"correlation", "shared"}
    found = {how: _ask(fit, case, how) for how in RANKINGS if how in asked}
    decoded = None if nearest is None else _decode(fit, features, case, nearest, weigh=ranking == "shared")
    main = found[ranking]
    config = {
        **fit.identity(),
        "features_provenance": dict(features.provenance),
        **(notes or {}),
        "ranking": main.ranking,
        "noise": None if case.noise is None else case.noise.source,
        "temperature": main.temperature,
        "spread": spread,
        "single_trials": case.trials is not None,
        "noise_ratio": case.noise_ratio,
        "n_responses": case.seen.size,
        "n_candidates": case.names.size,
        "n_voxels": case.voxels.size,
        "responses_sha256": hash_responses(case.responses[:, case.voxels]),
        **({} if decoded is None else {"settled": decoded.settled}),
    }
    return ImagesTold(
        fit,
        main,
        _ranks(case, main),
        _accuracy(fit, case, ranking, found) if (case.truth >= 0).any() else None,
        decoded,
        case.names.size,
        case.trials is not None,
        config,
    )


def _case(
    fit: Fit,
    subject: SubjectData,
    table: FeatureTable,
    words: FeatureTable | None,
    shown: Mapping[str, str] | None,
    spread: Spread,
) -> _Case:
    images = subject.image_ids if shown is None else np.array([shown[name] for name in subject.image_ids.tolist()])
    ours, theirs = common_voxels(fit.space, subject.space)
    responses = np.full((subject.n_images, fit.space.n_voxels), np.nan)
    responses[:, ours] = subject.responses[:, theirs]
    fitted = seen_by(fit, table, images)
    if fitted.all():
        raise InputError(
            f"the fit has seen all {np.unique(images).size} images: identify others, or fit on fewer with --n-context."
        )
    noise = None
    if np.unique(images[fitted]).size >= FEWEST_FOR_NOISE and ours.size == fit.space.n_voxels:
        noise = _noise(fit, table, responses[fitted], images[fitted])
    else:
        logger.info(
            "no noise that voxels share is known, as the betas hold too few responses to the fit's own images: "
            "probabilities and intervals are too sure"
        )
    new = images[~fitted]
    candidates, names = _candidate_images(fit, table) if words is None else _candidate_words(words, table)
    place = {} if words is not None else {name: row for row, name in enumerate(names.tolist())}
    return _Case(
        seen=new,
        trials=None if shown is None else subject.image_ids[~fitted],
        responses=responses[~fitted],
        voxels=ours,
        candidates=candidates,
        names=names,
        truth=np.array([place.get(name, -1) for name in new.tolist()], dtype=np.intp),
        noise=noise,
        noise_ratio=_noise_ratio(fit, subject.n_repeats[~fitted]),
        spread=spread,
    )


def _candidate_images(fit: Fit, table: FeatureTable) -> tuple[npt.NDArray[Any], npt.NDArray[np.str_]]:
    """Features and names of the images that the fit has not seen."""
    names = table.image_ids[~seen_by(fit, table, table.image_ids)]
    if names.size < 2:
        raise InputError(f"features holds {names.size} image that the fit has not seen: pass at least 2 candidates.")
    candidates = table.features[table.rows(names)]
    copies = names.size - np.unique(image_digests(candidates)).size
    if copies:
        logger.warning("%d candidates have the features of another, so nothing tells the two apart", copies)
    return candidates, names


def _candidate_words(words: FeatureTable, images: FeatureTable) -> tuple[npt.NDArray[Any], npt.NDArray[np.str_]]:
    """Features and names of words, over the gap between texts and images where they are texts."""
    features = words.features
    if _are_texts(words):
        features = features - features.mean(axis=0) + images.features.mean(axis=0)
    return features, words.image_ids


def _are_texts(table: FeatureTable) -> bool:
    """Whether features say that they are of texts, as those of `braincorl embed --text` do."""
    return "templates" in table.provenance


def _noise(
    fit: Fit, table: FeatureTable, responses: npt.NDArray[np.float64], images: npt.NDArray[np.str_]
) -> NoiseModel:
    """Noise of the fit's own images: from their repeats, which hold no signal, or else from residuals."""
    names, counts = np.unique(images, return_counts=True)
    if (counts > 1).sum() >= FEWEST_FOR_NOISE:
        return repeat_noise(responses, images)
    first = [int(np.flatnonzero(images == name)[0]) for name in names]
    return context_noise(fit.encoder, table.features[table.rows(names)], responses[first])


def _noise_ratio(fit: Fit, n_repeats: npt.NDArray[np.int64]) -> float:
    """How much noisier these responses are than the context's, by the numbers of trials behind both."""
    of_context = fit.config.get("trials_per_image")
    if not isinstance(of_context, int | float) or not of_context >= 1:
        logger.info("the fit does not say how many trials its responses are means of: noise is taken to be the same")
        return 1.0
    return float(of_context / trials_per_image(n_repeats))


def _decode(fit: Fit, table: FeatureTable, case: _Case, candidates: FeatureTable, *, weigh: bool) -> Decoded:
    pool = take_rows(table.features, np.flatnonzero(~np.isin(table.image_ids, case.seen)))
    if len(pool) < FEWEST_IN_POOL:
        raise InputError(
            f"features holds {len(pool)} images besides those to be told: nearest needs at least "
            f"{FEWEST_IN_POOL}, to know what features of images are like."
        )
    posterior = feature_posterior(
        fit.encoder,
        case.responses,
        pool,
        noise=case.noise,
        weigh=weigh and case.noise is not None,
        noise_ratio=case.noise_ratio,
        voxels=case.voxels,
    )
    origin = candidates.features.mean(axis=0) if _are_texts(candidates) else None
    nearest = posterior.nearest(candidates.features, origin=origin)
    rows, best = np.arange(len(case.seen)), nearest.best(N_BEST)
    columns: dict[str, Any] = _labels(case)
    for place, chosen in enumerate(best.T, start=1):
        columns |= {
            f"nearest{place}": candidates.image_ids[chosen],
            f"cosine{place}": nearest.similarity[rows, chosen],
            f"low{place}": nearest.low[rows, chosen],
            f"high{place}": nearest.high[rows, chosen],
            f"probability{place}": nearest.probability[rows, chosen],
        }
    names = case.seen if case.trials is None else case.trials
    provenance = dict(table.provenance) | {"decoded_from": fit.subject}
    features = FeatureTable(posterior.mean.astype(np.float32), names, provenance)
    return Decoded(pd.DataFrame(columns), features, posterior.settled, candidates.image_ids.size)


def _labels(case: _Case) -> dict[str, Any]:
    return {"image": case.seen} if case.trials is None else {"trial": case.trials, "image": case.seen}


def _ask(fit: Fit, case: _Case, how: Ranking, voxels: npt.NDArray[np.intp] | None = None) -> Identification:
    chosen = case.voxels if voxels is None else voxels
    return identify(
        fit.encoder,
        case.responses,
        case.candidates,
        case.truth,
        noise=case.noise,
        ranking=how,
        spread=case.spread,
        noise_ratio=case.noise_ratio,
        voxels=chosen,
    )


def _ranks(case: _Case, found: Identification) -> pd.DataFrame:
    best = found.best(N_BEST)
    table = pd.DataFrame(_labels(case))
    if (case.truth >= 0).any():
        table["rank"] = found.ranks
        table["n_candidates"] = case.names.size
    if found.ranking != "correlation":
        probability = found.probability
        table["probability_of_best"] = np.take_along_axis(probability, best[:, :1], axis=1)[:, 0]
        if (case.truth >= 0).any():
            table["probability_of_seen"] = probability[np.arange(len(case.truth)), case.truth]
    for place in range(best.shape[1]):
        table[f"best{place + 1}"] = case.names[best[:, place]]
    return table


def _accuracy(fit: Fit, case: _Case, ranking: Ranking, found: Mapping[Ranking, Identification]) -> pd.DataFrame:
    """Accuracy of all voxels by every ranking, and of regions by the one that was chosen, among all candidates."""
    tables = [
        result.table(case.seen).assign(roi="all", n_voxels=case.voxels.size, ranking=how)
        for how, result in found.items()
    ]
    for name, members in fit.rois.items():
        voxels = case.voxels[members[case.voxels]]
        if voxels.size >= FEWEST_VOXELS:
            own = _ask(fit, case, ranking, voxels).table(case.seen, n_candidates=[case.names.size])
            tables.append(own.assign(roi=name, n_voxels=voxels.size, ranking=ranking))
    table = pd.concat(tables, ignore_index=True)
    first = ["roi", "n_voxels", "ranking"]
    return table[[*first, *(column for column in table if column not in first)]]
