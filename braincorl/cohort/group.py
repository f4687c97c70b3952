"""`make_group`: what the fits of a cohort give together: a memory for new people, tables, a report.

prior.safetensors   the people's voxels, remembered, for `fit --prior`
scores.tsv          a row per person and region: scores of images that the person's fit had not seen
regions.tsv         a row per region: mean over people, standard deviation, 95 % interval over people
partition.tsv       a row per person, region, part and feature space: what each space explains; where it was scored
spaces.tsv          the same over people: mean, 95 % interval over people
few-shot.tsv        accuracy against the number of images, each person left out in turn; where it was asked for
report.html         all of it at a glance
config.json         whose fits, and options
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braincorl import __version__
from braincorl.batching import working_memory
from braincorl.cohort.few_shot import FewShot, FewShotTask, few_shot_curve, read_curves
from braincorl.cohort.people import Person
from braincorl.cohort.running import COPIES, MEMORY_OF_A_WORKER, tell
from braincorl.cohort.task import FitOptions, Outcome, read_table
from braincorl.cohort.workers import Workers
from braincorl.encoders.base import saved_class
from braincorl.errors import InputError
from braincorl.fits.earlier.one_by_one import load_fits
from braincorl.fits.earlier.remembering import remember_fits
from braincorl.fits.folder import read_config, write_description
from braincorl.fits.scores import SCORES
from braincorl.questions.group_means import interval_over_people, over_people
from braincorl.storage.files import Progress, ProgressCounter, read_json, write_json
from braincorl.storage.result_folders import holds_result, staged_directory
from braincorl.storage.tensorfile import read_metadata
from braincorl.threads import limited_threads

logger = logging.getLogger(__name__)

GROUP, CURVES = "group", "few-shot"
TABLES = 2  # raised when the group's files change, so that those of earlier versions are made again
SCORED, PARTS = "scores.tsv", "partition.tsv"


@dataclass(frozen=True)
class GroupOptions:
    """What to make of the fits.

    Attributes
    ----------
    rois
        Whether the memory knows regions; by default if all people have some.
    places
        Whether it knows places, for people in one common space.
    few_shot
        The curves to measure; None for none.
    max_items
        As for `GroupPrior.fit`.
    """

    rois: bool | None = None
    places: bool = False
    few_shot: FewShot | None = None
    max_items: int | None = None


@dataclass(frozen=True)
class Group:
    """What a group's folder holds.

    Attributes
    ----------
    folder
        Where it is.
    n_people
        Whose fits it is made of.
    made
        Whether it was made now, or is that of an earlier run.
    failed
        Curves that failed: name -> reason.
    """

    folder: Path
    n_people: int
    made: bool
    failed: Mapping[str, str] = field(default_factory=dict)


def make_group(
    folder: str | Path,
    people: Sequence[Person],
    options: FitOptions,
    group: GroupOptions | None = None,
    workers: Workers | None = None,
    *,
    missing: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Group:
    """Make the group's products of all people who are fitted; those of an earlier run stay if nothing has changed.

    Parameters
    ----------
    folder
        Of the cohort, from `fit_cohort`.
    people
        Whose fits count, if they are there.
    options
        As they were fitted.
    group
        What to make.
    workers
        Where the curves are measured.
    missing
        Who failed, and why, for the report.
    progress
        Called with (curves done, curves).

    Returns
    -------
    Group

    Raises
    ------
    InputError
        If nobody is fitted, or the fits do not fit together.
    OutputError
        If the folder cannot be written.
    """
    # Drawing takes as long to import as all else that a worker needs; workers import this module, and draw nothing.
    from braincorl.analysis.report.group_report import GroupFacts, write_group_report

    folder, group = Path(folder), group or GroupOptions()
    there = [person for person in people if holds_result(folder / person.name, "fit")]
    if not there:
        raise InputError(f"{folder} holds no fit of these people: fit them first (participant level).")
    regions = all(_has_regions(folder / person.name) for person in there) if group.rois is None else group.rois
    protocol = group.few_shot
    if protocol is not None and protocol.rois is None:
        protocol = replace(protocol, rois=regions)
    failed: dict[str, str] = {}
    if protocol is not None:
        failed = _measure_curves(folder, there, options, protocol, workers or Workers(), progress)
    absent = dict(missing or {}) | failed
    identity = {
        "braincorl": __version__,
        "tables": TABLES,
        "fits": {p.name: read_metadata(folder / p.name / "encoder.safetensors")["sha256"] for p in there},
        "rois": regions,
        "places": group.places,
        "max_items": group.max_items,
        "few_shot": None if protocol is None else protocol.identity(),
        "missing": absent,
        "tables_sha256": _hash_tables(folder, there),
    }
    target = folder / GROUP
    if holds_result(target, "group") and read_json(target / "config.json") == identity:
        return Group(target, len(there), False, failed)
    subjects, encoder, simulation = _read_configs(folder, there)
    scores = collect_tables(folder, subjects, SCORED)
    summary = summarize_people(scores)
    parts = collect_tables(folder, subjects, PARTS)
    curves = pd.DataFrame()
    if protocol is not None:
        curves = read_curves(folder / CURVES, protocol.choose([person.name for person in there]))
    table = None if options.features is None else read_table(options.features, options.image_ids)
    fits = load_fits([folder / person.name for person in there])
    with limited_threads(options.threads, torch=False):
        prior = remember_fits(fits, rois=regions, places=group.places, table=table, max_items=group.max_items or "auto")
    with staged_directory(target, overwrite=True, kind="group") as staged:
        prior.save(staged / "prior.safetensors")
        tables = {"scores": scores, "regions": summary, "partition": parts, "spaces": _summarize_spaces(parts)}
        for name, rows in {**tables, "few-shot": curves}.items():
            if len(rows):
                rows.to_csv(staged / f"{name}.tsv", sep="\t", index=False, na_rep="n/a")
        write_json(staged / "config.json", identity)
        facts = GroupFacts(
            people=list(subjects.values()),
            encoder=encoder,
            missing=absent,
            scores=scores,
            regions=summary,
            curves=curves,
            memory=f"{prior}{', regions ' + ', '.join(prior.regions) if prior.regions else ''}",
            provenance=dict(prior.provenance),
            simulation=simulation,
        )
        write_group_report(staged / "report.html", facts)
        write_description(staged, "Products of a cohort")
    return Group(target, len(there), True, failed)


def _measure_curves(
    folder: Path,
    people: Sequence[Person],
    options: FitOptions,
    protocol: FewShot,
    workers: Workers,
    progress: Progress | None,
) -> dict[str, str]:
    """Measure the curves that are not there; reasons of those that failed."""
    if len(people) < 2:
        raise InputError("few-shot curves leave one person out and remember the others: at least 2 people are needed.")
    folders = {person.name: folder / person.name for person in people}
    chosen = set(protocol.choose(list(folders)))
    tasks = [
        FewShotTask(
            person,
            options,
            tuple(path for name, path in folders.items() if name != person.name),
            protocol,
            folder / CURVES,
        )
        for person in people
        if person.name in chosen
    ]
    largest = max((path / "encoder.safetensors").stat().st_size for path in folders.values())
    needed = MEMORY_OF_A_WORKER + COPIES * largest + working_memory()  # the others are read one after the other
    counter, failed = ProgressCounter(len(tasks), progress), dict[str, str]()
    with workers.sized(len(tasks), needed).start() as runner:
        for task, result in runner.run(few_shot_curve, tasks):
            outcome = result if isinstance(result, Outcome) else Outcome(task.name, "failed", str(result))
            counter.add(1)
            tell(outcome)
            if outcome.status == "failed":
                failed[outcome.name] = f"few-shot curve: {outcome.text}"
    return failed


def _has_regions(fit: Path) -> bool:
    return bool(json.loads(read_metadata(fit / "space.safetensors")["header"])["rois"])


def _read_configs(folder: Path, people: Sequence[Person]) -> tuple[dict[str, str], str, bool]:
    """Label of each person by the name of their folder, the encoder, and whether anybody is simulated."""
    subjects, encoder, simulation = dict[str, str](), "", False
    for person in people:
        config = read_config(folder / person.name)
        subjects[person.name] = str(config["subject"])
        encoder = encoder or str(config.get("encoder", saved_class(folder / person.name / "encoder.safetensors")))
        simulation |= "simulation" in str(config["features_provenance"]).lower()
    return subjects, encoder, simulation


def _find_table(fit: Path, name: str) -> Path | None:
    """Find a table of a fit: of `braincorl score` where there is one, else of the images left out."""
    return next((path for path in (fit / "scores" / name, fit / name) if path.is_file()), None)


def _hash_tables(folder: Path, people: Sequence[Person]) -> str:
    """SHA-256 over everybody's tables, since a person may be scored after the group was made."""
    digest = hashlib.sha256()
    for person in people:
        for name in (SCORED, PARTS):
            path = _find_table(folder / person.name, name)
            digest.update(b"none" if path is None else path.read_bytes())
    return digest.hexdigest()


def collect_tables(folder: Path, subjects: Mapping[str, str], name: str) -> pd.DataFrame:
    """Put everybody's tables of scores, or of what feature spaces explain, below one another.

    Parameters
    ----------
    folder
        Of the cohort.
    subjects
        Name of a person's folder -> label.
    name
        "scores.tsv" or "partition.tsv": of `braincorl score` where a fit has it, else of the images left out.

    Returns
    -------
    pandas.DataFrame
        Columns `subject`, `roi`, `n_voxels`, `images` ("score" or "left out"), and those of the table; no row for
        people without one.
    """
    tables = []
    for person, subject in subjects.items():
        path = _find_table(folder / person, name)
        if path is not None:
            table = pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)
            table.insert(0, "subject", subject)
            table.insert(3, "images", "left out" if path.parent.name == person else "score")
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _summarize_spaces(parts: pd.DataFrame) -> pd.DataFrame:
    """Mean over people of what each feature space explains of each region, with an interval over people."""
    if not len(parts):
        return pd.DataFrame()
    tables = {str(subject): table for subject, table in parts.groupby("subject", sort=False)}
    return over_people(tables, "mean", ["roi", "part", "space"])


def summarize_people(scores: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Mean over people of each region's score, with an interval over people.

    Parameters
    ----------
    scores
        Of `collect_tables`.
    level
        Of the interval, by Student's t over people; it says how much the mean hangs on whom was measured.

    Returns
    -------
    pandas.DataFrame
        One row per region, in the order of first appearance: `roi`, `n_people`, and for each score `NAME_mean`,
        `NAME_sd`, `NAME_low`, `NAME_high`, NaN where fewer than two people have it.
    """
    if not len(scores):
        return pd.DataFrame()
    rows = []
    for roi, part in scores.groupby("roi", sort=False):
        row: dict[str, Any] = {"roi": roi, "n_people": int(part["subject"].nunique())}
        for name in SCORES:
            if f"{name}_mean" not in part:
                continue
            values = part[f"{name}_mean"].to_numpy(dtype=float)
            values = values[np.isfinite(values)]
            mean, low, high = map(float, interval_over_people(values, level)) if values.size else [float("nan")] * 3
            spread = float(values.std(ddof=1)) if values.size > 1 else float("nan")
            row |= {f"{name}_mean": mean, f"{name}_sd": spread, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)
