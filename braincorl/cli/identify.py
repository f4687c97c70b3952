"""`braincorl identify`: which image was seen, of some candidates, told from a person's responses."""

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl import __version__
from braincorl.analysis.question_figures import plot_identification
from braincorl.analysis.report.page import SIMULATION, Section, write_page
from braincorl.analysis.report.top_images import Thumbnails
from braincorl.cli.common import (
    add_data_options,
    add_output_options,
    add_verb,
    progress_bar,
    read_features,
    read_responses,
)
from braincorl.datasets import SubjectData
from braincorl.datasets.load import open_subject
from braincorl.errors import InputError
from braincorl.features import FeatureTable, load_features, save_features
from braincorl.features.store.table import take_rows
from braincorl.files import write_json
from braincorl.fits import Fit
from braincorl.fits.folder import hash_responses, identify_fit, write_description
from braincorl.fits.scores import common_voxels
from braincorl.fits.seen_images import check_features_fit, check_space_fits, seen_by
from braincorl.metrics import trials_per_image
from braincorl.priors.image_digests import image_digests
from braincorl.questions.feature_posterior import feature_posterior
from braincorl.questions.identification import Identification, Spread, context_noise, identify, repeat_noise
from braincorl.questions.noise import NoiseModel
from braincorl.result_folders import check_destination, staged_directory

logger = logging.getLogger(__name__)

N_BEST = 5  # as the top-5 of image classification
FEWEST_VOXELS = 5  # of a region, to be asked by itself
FEWEST_FOR_NOISE = 5  # context images
FEWEST_IN_POOL = 3
MOST_SHOWN = 24  # rows of pictures on a page
CERTAINTY = {
    "independent": "candidates are ranked as if voxels shared no noise",
    "shared": "voxels are weighed by the noise that they share",
    "correlation": "correlation of measured and predicted patterns over voxels",
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "identify",
        "Rank candidate images, or words, by how likely they make each measured response: tables of ranks and of "
        "accuracy against the number of candidates, with chance levels and intervals, by region, and a page.",
    )
    parser.add_argument("fit_dir", type=Path, metavar="FIT_DIR", help="folder that braincorl fit wrote")
    add_data_options(parser)
    parser.add_argument(
        "--text-features",
        type=Path,
        metavar="FILE",
        help="rank these words in place of images (features of the same space, from braincorl embed --text)",
    )
    parser.add_argument(
        "--nearest",
        type=Path,
        metavar="FILE",
        help="also tell what these words or images have in common with what was seen, which need not be among them: "
        "nearest.tsv, by cosine to the features that the response speaks for, with 95 %% intervals, and "
        "decoded_features.npz, those features",
    )
    parser.add_argument(
        "--single-trials",
        action="store_true",
        help="ask for every trial, not for the mean over each image's trials; noise is scaled by their number",
    )
    parser.add_argument(
        "--ranking",
        choices=tuple(CERTAINTY),
        default="independent",
        help="; ".join(f"{name}: {what}" for name, what in CERTAINTY.items()) + " (default: independent)",
    )
    parser.add_argument(
        "--spread",
        choices=("mean", "candidate"),
        default="mean",
        help="predictive deviations of voxels: their mean over candidates, or each candidate's own (default: mean)",
    )
    parser.add_argument("--images", type=Path, metavar="PATH", help="folder or HDF5 file with the images, to show them")
    add_output_options(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Case:
    """What is asked.

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


def run(options: argparse.Namespace) -> None:
    """Identify and write tables and a page."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="identification")
    fit = Fit.load(options.fit_dir)
    table = read_features(options)
    check_features_fit(fit, table)
    nearest = None if options.nearest is None else _load_candidates(options.nearest, fit)
    case = _case(options, fit, table)
    asked = {"independent", options.ranking} | (set() if options.text_features else {"correlation"})
    asked |= {"shared"} if case.noise is not None and not options.text_features else set()
    found = {how: _ask(fit, case, how) for how in sorted(asked, key=list(CERTAINTY).index)}
    main, known = found[options.ranking], (case.truth >= 0).any()
    thumbnails = None if options.images is None else Thumbnails.of(options.images)
    ranks = _ranks(case, main)
    accuracy = _accuracy(fit, case, options.ranking, found) if known else None
    decoded = None if nearest is None else _decode(options, fit, table, case, nearest)
    with staged_directory(options.output_dir, overwrite=options.overwrite, kind="identification") as folder:
        ranks.to_csv(folder / "identification.tsv", sep="\t", index=False, na_rep="n/a")
        if accuracy is not None:
            accuracy.to_csv(folder / "accuracy.tsv", sep="\t", index=False, na_rep="n/a")
        config = _config(options, fit, table, case, main)
        if decoded is not None:
            decoded.table.to_csv(folder / "nearest.tsv", sep="\t", index=False, na_rep="n/a", float_format="%.4g")
            save_features(folder / "decoded_features.npz", decoded.features)
            config |= {"nearest": options.nearest, "settled": decoded.settled}
        write_json(folder / "config.json", config)
        _write_page(folder / "report.html", fit, case, main, ranks, accuracy, thumbnails, decoded)
        write_description(folder, "Images identified from responses")
    print(f"{fit.subject}: {_describe(case, main, accuracy)} -> {options.output_dir}")
    if decoded is not None:
        print(f"{fit.subject}: {decoded}")


def _case(options: argparse.Namespace, fit: Fit, table: FeatureTable) -> _Case:
    subject, shown = _read(options, fit, table)
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
    new, trials = images[~fitted], None if shown is None else subject.image_ids[~fitted]
    ratio = _noise_ratio(fit, subject.n_repeats[~fitted])
    if options.text_features is not None:
        words = _load_candidates(options.text_features, fit)
        nothing = np.full(new.size, -1, dtype=np.intp)
        features = words.features
        if _are_texts(words):  # over the gap between texts and images
            features = features - features.mean(axis=0) + table.features.mean(axis=0)
        return _Case(
            new, trials, responses[~fitted], ours, features, words.image_ids, nothing, noise, ratio, options.spread
        )
    names = table.image_ids[~seen_by(fit, table, table.image_ids)]
    if names.size < 2:
        raise InputError(f"--features holds {names.size} image that the fit has not seen: pass at least 2 candidates.")
    copies = names.size - np.unique(image_digests(table.features[table.rows(names)])).size
    if copies:
        logger.warning("%d candidates have the features of another, so nothing tells the two apart", copies)
    place = {name: row for row, name in enumerate(names.tolist())}
    truth = np.array([place[name] for name in new.tolist()], dtype=np.intp)
    candidates = table.features[table.rows(names)]
    return _Case(new, trials, responses[~fitted], ours, candidates, names, truth, noise, ratio, options.spread)


def _read(options: argparse.Namespace, fit: Fit, table: FeatureTable) -> tuple[SubjectData, dict[str, str] | None]:
    """Responses of images, or of single trials and what each showed."""
    zscore = fit.config["zscore"]
    if not options.single_trials:
        return read_responses(options, table, fit.grid, zscore), None
    if not options.trials:
        raise InputError("--single-trials needs the betas with --trials: a prepared person holds means over trials.")
    known = set(table.image_ids.tolist())
    recording, shown = open_subject(options.betas, options.trials, fit.grid, zscore=zscore).trial_by_trial()
    with progress_bar("reading trials") as progress:
        subject = recording.load([name for name, image in shown.items() if image in known], progress)
    return subject, shown


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


def _load_candidates(path: Path, fit: Fit) -> FeatureTable:
    candidates = load_features(path)
    check_space_fits(fit, candidates)
    return candidates


def _are_texts(table: FeatureTable) -> bool:
    """Whether features say that they are of texts, as those of `braincorl embed --text` do."""
    return "templates" in table.provenance


@dataclass(frozen=True)
class _Decoded:
    """Posterior over features: a table of what lies nearest, mean features, and the share that responses settle."""

    table: pd.DataFrame
    features: FeatureTable
    settled: float
    n_candidates: int

    def __str__(self) -> str:
        return (
            f"a response settles {self.settled:.0%} of the variance of features over images; of {self.n_candidates} "
            f"candidates the nearest is so in {self.table['probability1'].mean():.0%} of the posterior's draws (mean "
            "over responses)"
        )


def _decode(
    options: argparse.Namespace, fit: Fit, table: FeatureTable, case: _Case, candidates: FeatureTable
) -> _Decoded:
    pool = take_rows(table.features, np.flatnonzero(~np.isin(table.image_ids, case.seen)))
    if len(pool) < FEWEST_IN_POOL:
        raise InputError(
            f"--features holds {len(pool)} images besides those to be told: --nearest needs at least "
            f"{FEWEST_IN_POOL}, to know what features of images are like."
        )
    posterior = feature_posterior(
        fit.encoder,
        case.responses,
        pool,
        noise=case.noise,
        weigh=options.ranking == "shared" and case.noise is not None,
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
    return _Decoded(pd.DataFrame(columns), features, posterior.settled, candidates.image_ids.size)


def _labels(case: _Case) -> dict[str, Any]:
    return {"image": case.seen} if case.trials is None else {"trial": case.trials, "image": case.seen}


def _ask(fit: Fit, case: _Case, how: str, voxels: npt.NDArray[np.intp] | None = None) -> Identification:
    chosen = case.voxels if voxels is None else voxels
    return identify(
        fit.encoder,
        case.responses,
        case.candidates,
        case.truth,
        noise=case.noise,
        ranking=how,  # type: ignore[arg-type]
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


def _accuracy(fit: Fit, case: _Case, ranking: str, found: dict[str, Identification]) -> pd.DataFrame:
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


def _describe(case: _Case, found: Identification, accuracy: pd.DataFrame | None) -> str:
    what = f"{case.seen.size} {'responses' if case.trials is None else 'single trials'}, {case.names.size} candidates"
    if accuracy is None:
        return what
    row = _of_all(accuracy, found.ranking).iloc[-1]
    return (
        f"{what}: the seen image is first in {row['top1']:.1%} (95 % interval {row['top1_low']:.1%} to "
        f"{row['top1_high']:.1%}, chance {row['top1_chance']:.1%}) and among the best 5 in {row['top5']:.1%} (chance "
        f"{row['top5_chance']:.1%}); median rank {row['median_rank']:.0f}"
    )


def _of_all(accuracy: pd.DataFrame, ranking: str) -> pd.DataFrame:
    return accuracy[(accuracy["roi"] == "all") & (accuracy["ranking"] == ranking)]


def _config(
    options: argparse.Namespace, fit: Fit, table: FeatureTable, case: _Case, found: Identification
) -> dict[str, Any]:
    return {
        "braincorl": __version__,
        **identify_fit(fit),
        "features": options.features,
        "features_provenance": dict(table.provenance),
        "text_features": options.text_features,
        "betas": options.betas,
        "trials": options.trials,
        "ranking": found.ranking,
        "noise": None if case.noise is None else case.noise.source,
        "temperature": found.temperature,
        "spread": case.spread,
        "single_trials": case.trials is not None,
        "noise_ratio": case.noise_ratio,
        "n_responses": case.seen.size,
        "n_candidates": case.names.size,
        "n_voxels": case.voxels.size,
        "responses_sha256": hash_responses(case.responses[:, case.voxels]),
    }


def _write_page(
    path: Path,
    fit: Fit,
    case: _Case,
    found: Identification,
    ranks: pd.DataFrame,
    accuracy: pd.DataFrame | None,
    thumbnails: Thumbnails | None,
    decoded: _Decoded | None,
) -> None:
    curve = regions = None
    if accuracy is not None:
        whole = accuracy[accuracy["roi"] == "all"]
        by_ranking = {str(name): rows for name, rows in whole.groupby("ranking", sort=False)}
        curve = {
            "figure": plot_identification(by_ranking),
            "n_responses": case.seen.size,
            "rankings": {name: CERTAINTY[name] for name in by_ranking},
        }
        last = accuracy[(accuracy["n_candidates"] == case.names.size) & (accuracy["ranking"] == found.ranking)]
        columns = {"roi": "region", "n_voxels": "voxels", "top1": "first", "top1_low": "low", "top1_high": "high"}
        columns |= {"top1_chance": "chance", "top5": "best five", "median_rank": "median rank"}
        regions = {"table": last[list(columns)].rename(columns=columns)}
    pictures = {"responses": _pictures(case, ranks, thumbnails), "n_responses": len(ranks)}
    write_page(
        path,
        f"{fit.subject}: what was seen",
        _describe(case, found, accuracy),
        [
            Section("Accuracy", "identification/accuracy.html", curve),
            Section("Regions", "identification/regions.html", regions),
            Section("Seen and best-ranked", "identification/seen.html", pictures),
            Section("Nearest", "identification/nearest.html", None if decoded is None else _nearest(decoded)),
        ],
        [SIMULATION] if fit.config.get("simulation") else [],
    )


def _nearest(decoded: _Decoded) -> dict[str, Any]:
    """Show what lies nearest to what each of some responses speaks for, with uncertainty."""
    some = decoded.table.iloc[np.unique(np.linspace(0, len(decoded.table) - 1, MOST_SHOWN).astype(int))]
    shown = some[[column for column in ("trial", "image") if column in some]].copy()
    for place in (1, 2, 3):
        if f"nearest{place}" in some:
            values = zip(*(some[f"{name}{place}"] for name in ("nearest", "cosine", "low", "high")), strict=True)
            shown[str(place)] = [f"{name} {cosine:.2f} ({low:.2f} to {high:.2f})" for name, cosine, low, high in values]
    shown["first is nearest"] = [f"{share:.0%}" for share in some["probability1"]]
    return {"table": shown, "summary": str(decoded)}


def _pictures(case: _Case, ranks: pd.DataFrame, thumbnails: Thumbnails | None) -> list[tuple[str, Any]]:
    """For every response what was seen, and the candidates that are likeliest; evenly from the best to the worst."""
    order = np.argsort(ranks["rank"].to_numpy(), kind="stable") if "rank" in ranks else np.arange(len(ranks))
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(MOST_SHOWN, len(order))).astype(int))]
    words = (case.truth < 0).all()
    found = []
    for row in ranks.iloc[chosen].to_dict("records"):
        best = [str(row[f"best{place}"]) for place in range(1, N_BEST + 1) if f"best{place}" in row]
        names = [("seen", str(row["image"])), *((str(place), name) for place, name in enumerate(best, start=1))]
        items = [
            (
                None if thumbnails is None or (words and place != "seen") else thumbnails.get(name),
                f"{place}: {name}{' ✓' if place != 'seen' and name == str(row['image']) else ''}",
            )
            for place, name in names
        ]
        rank = f"rank {int(row['rank'])} of {case.names.size}" if "rank" in row else "likeliest words"
        heading = f"{row['trial']}, {row['image']}" if "trial" in row else str(row["image"])
        found.append((f"{heading}: {rank}", items))
    return found
