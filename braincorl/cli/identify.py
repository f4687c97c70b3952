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
from braincorl.cli.common import add_data_options, add_output_options, add_verb, read_features, read_responses
from braincorl.datasets import SubjectData
from braincorl.errors import InputError
from braincorl.features import FeatureTable, load_features
from braincorl.files import write_json
from braincorl.fits import Fit
from braincorl.fits.folder import hash_responses, identify_fit, write_description
from braincorl.fits.scores import common_voxels
from braincorl.fits.seen_images import check_features_fit, check_space_fits, seen_by
from braincorl.questions.identification import Identification, context_noise, identify
from braincorl.questions.noise import NoiseModel
from braincorl.result_folders import check_destination, staged_directory

logger = logging.getLogger(__name__)

N_BEST = 5
FEWEST_VOXELS = 5  # of a region, to be asked by itself
FEWEST_FOR_NOISE = 5  # context images
MOST_SHOWN = 24
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
        "--ranking",
        choices=tuple(CERTAINTY),
        default="independent",
        help="; ".join(f"{name}: {what}" for name, what in CERTAINTY.items()) + " (default: independent)",
    )
    parser.add_argument("--images", type=Path, metavar="PATH", help="folder or HDF5 file with the images, to show them")
    add_output_options(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Case:
    """What is asked: responses (n, v) of the fit's voxels, candidates (c, p) and their names, and what was seen."""

    seen: npt.NDArray[np.str_]
    responses: npt.NDArray[np.float64]
    voxels: npt.NDArray[np.intp]
    candidates: npt.NDArray[Any]
    names: npt.NDArray[np.str_]
    truth: npt.NDArray[np.intp]
    noise: NoiseModel | None


def run(options: argparse.Namespace) -> None:
    """Identify and write tables and a page."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="identification")
    fit = Fit.load(options.fit_dir)
    table = read_features(options)
    check_features_fit(fit, table)
    subject = read_responses(options, table, fit.grid, fit.config["zscore"], [])
    case = _case(options, fit, table, subject)
    asked = {"independent", options.ranking} | (set() if options.text_features else {"correlation"})
    asked |= {"shared"} if case.noise is not None and not options.text_features else set()
    found = {how: _ask(fit, case, how) for how in sorted(asked, key=list(CERTAINTY).index)}
    main, known = found[options.ranking], (case.truth >= 0).any()
    thumbnails = None if options.images is None else Thumbnails.of(options.images)
    ranks = _ranks(case, main)
    accuracy = _accuracy(fit, case, options.ranking, found) if known else None
    with staged_directory(options.output_dir, overwrite=options.overwrite, kind="identification") as folder:
        ranks.to_csv(folder / "identification.tsv", sep="\t", index=False, na_rep="n/a")
        if accuracy is not None:
            accuracy.to_csv(folder / "accuracy.tsv", sep="\t", index=False, na_rep="n/a")
        write_json(folder / "config.json", _config(options, fit, table, case, main))
        _write_page(folder / "report.html", fit, case, main, ranks, accuracy, thumbnails)
        write_description(folder, "Images identified from responses")
    print(f"{fit.subject}: {_describe(case, main, accuracy)} -> {options.output_dir}")


def _case(options: argparse.Namespace, fit: Fit, table: FeatureTable, subject: SubjectData) -> _Case:
    ours, theirs = common_voxels(fit.space, subject.space)
    responses = np.full((subject.n_images, fit.space.n_voxels), np.nan)
    responses[:, ours] = subject.responses[:, theirs]
    fitted = seen_by(fit, table, subject.image_ids)
    if fitted.all():
        raise InputError(
            f"the fit has seen all {subject.n_images} images: identify others, or fit on fewer with --n-context."
        )
    noise = None
    if fitted.sum() >= FEWEST_FOR_NOISE and ours.size == fit.space.n_voxels:
        context = table.features[table.rows(subject.image_ids[fitted])]
        noise = context_noise(fit.encoder, context, responses[fitted])
    else:
        logger.info("no noise that voxels share is known, as the betas hold too few responses to the fit's own images")
    new = subject.image_ids[~fitted]
    if options.text_features is not None:
        words = load_features(options.text_features)
        check_space_fits(fit, words)
        nothing = np.full(new.size, -1, dtype=np.intp)
        return _Case(new, responses[~fitted], ours, words.features, words.image_ids, nothing, noise)
    names = table.image_ids[~seen_by(fit, table, table.image_ids)]
    if names.size < 2:
        raise InputError(f"--features holds {names.size} image that the fit has not seen: pass at least 2 candidates.")
    place = {name: row for row, name in enumerate(names.tolist())}
    truth = np.array([place[name] for name in new.tolist()], dtype=np.intp)
    return _Case(new, responses[~fitted], ours, table.features[table.rows(names)], names, truth, noise)


def _ask(fit: Fit, case: _Case, how: str, voxels: npt.NDArray[np.intp] | None = None) -> Identification:
    chosen = case.voxels if voxels is None else voxels
    return identify(
        fit.encoder, case.responses, case.candidates, case.truth, noise=case.noise, ranking=how, voxels=chosen  # type: ignore[arg-type]
    )  # fmt: skip


def _ranks(case: _Case, found: Identification) -> pd.DataFrame:
    best = found.best(N_BEST)
    table = pd.DataFrame({"image": case.seen})
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
    tables = [result.table().assign(roi="all", n_voxels=case.voxels.size, ranking=how) for how, result in found.items()]
    for name, members in fit.rois.items():
        voxels = case.voxels[members[case.voxels]]
        if voxels.size >= FEWEST_VOXELS:
            own = _ask(fit, case, ranking, voxels).table(n_candidates=[case.names.size])
            tables.append(own.assign(roi=name, n_voxels=voxels.size, ranking=ranking))
    table = pd.concat(tables, ignore_index=True)
    first = ["roi", "n_voxels", "ranking"]
    return table[[*first, *(column for column in table if column not in first)]]


def _describe(case: _Case, found: Identification, accuracy: pd.DataFrame | None) -> str:
    what = f"{case.seen.size} responses, {case.names.size} candidates"
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
        ],
        [SIMULATION] if fit.config.get("simulation") else [],
    )


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
        found.append((f"{row['image']}: {rank}", items))
    return found
