"""`braincorl cohort`: many people to one fit each, on any number of workers, and what a group gives together."""

import argparse
from pathlib import Path
from typing import Any

from braincorl.cli.common import (
    add_encoder_options,
    add_features_options,
    add_verb,
    non_negative,
    positive,
    progress_bar,
)
from braincorl.cohort import (
    BidsTree,
    FewShot,
    FitOptions,
    Group,
    GroupOptions,
    Outcome,
    Person,
    PersonFiles,
    Workers,
    fit_cohort,
    make_group,
    people_of_table,
    people_of_tree,
    read_queue_config,
)
from braincorl.cohort.workers import QUEUES
from braincorl.errors import InputError

SOME_FAILED = 1  # exit status: what could be done is done


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "cohort",
        "Fit many people, one folder each, and what they give as a group: a memory for new people, tables, a report.\n"
        "Given again, it does what is missing. Who fails is named and stops nobody; the exit status is then 1.",
    )
    parser.add_argument(
        "people",
        type=Path,
        metavar="PEOPLE",
        help="folder of BIDS derivatives with single-trial betas; or a table (.tsv) with a row per person and the "
        "columns subject, betas, and where needed trials, mask, rois, ncsnr, features, zscore, context, n-context",
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="folder of the cohort")
    parser.add_argument("--overwrite", action="store_true", help="fit everybody again")
    parser.set_defaults(run=run)
    add_people_options(parser)
    add_fit_options(parser)
    add_group_options(parser)
    add_worker_options(parser)


def add_people_options(parser: argparse.ArgumentParser) -> None:
    """Add who, and which of their files."""
    parser.add_argument(
        "--participant-label",
        "--participant_label",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="who of them, with or without sub- (default: everybody)",
    )
    tree = parser.add_argument_group("which files of a BIDS folder, where there are several")
    for name in ("task", "space", "desc"):
        tree.add_argument(f"--{name}", metavar="LABEL", help=f"betas with this {name}-")
    for name, what in (("mask", "voxels above 0 are fitted"), ("ncsnr", "map of noise ceiling SNR")):
        tree.add_argument(f"--{name}", type=Path, nargs="+", default=[], metavar="FILE", help=f"{what}, for everybody")
    tree.add_argument("--rois", type=Path, nargs="+", default=[], metavar="FILE", help="regions, for everybody")


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    """Add how people are fitted."""
    add_features_options(parser, required=False)
    parser.add_argument(
        "--zscore",
        choices=("none", "session"),
        default="none",
        help="session: scale each voxel to mean 0, sd 1 over the trials of each session (default: none)",
    )
    add_encoder_options(parser)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--n-context",
        type=int,
        metavar="N",
        help="fit on N images drawn at random; others are scored (default: fit on all)",
    )
    chosen.add_argument(
        "--test", type=Path, metavar="TXT", help="images to score on, one name per line; others are fitted"
    )
    parser.add_argument(
        "--random-state", type=non_negative, default=0, metavar="S", help="seed of that draw (default: 0)"
    )
    parser.add_argument(
        "--outside", choices=("nan", "zero"), default="nan", help="value of maps outside the mask (default: nan)"
    )


def add_group_options(parser: argparse.ArgumentParser) -> None:
    """Add what is made of the fits."""
    group = parser.add_argument_group("the group: DIR/group, with a memory for fit --prior, tables and a report")
    group.add_argument("--places", action="store_true", help="remember places, for people in one common space")
    group.add_argument(
        "--few-shot",
        type=positive,
        nargs="+",
        metavar="N",
        help="leave each person out in turn, and measure accuracy from N images with the others remembered; scored are "
        "images of --test, or else a quarter of the person's that no other fit has seen",
    )
    group.add_argument(
        "--few-shot-people",
        type=positive,
        metavar="N",
        help="leave out N people, drawn at random, instead of everybody: the work is the square of the people",
    )
    group.add_argument("--n-draws", type=positive, default=5, metavar="N", help="random contexts of each (default: 5)")
    group.add_argument("--max-items", type=positive, metavar="N", help="of the memory, as for braincorl prior")


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add where the work is done."""
    group = parser.add_argument_group("workers")
    group.add_argument(
        "--n-workers",
        "--n-cpus",
        "--n_cpus",
        type=positive,
        metavar="N",
        help="people fitted at a time; 1 is this process alone (default: as cores and memory allow)",
    )
    group.add_argument(
        "--threads",
        type=positive,
        default=1,
        metavar="N",
        help="threads of linear algebra of each (default: 1, the same bytes on every machine of a kind)",
    )
    group.add_argument(
        "--voxels-per-task",
        type=positive,
        metavar="N",
        help="fit each person in blocks of N voxels, so that a worker reads one block; the same results; for "
        "files of braincorl data prepare, and the encoders ridge and bayesian-ridge (default: a person is one task)",
    )
    group.add_argument(
        "--mem-mb",
        "--mem_mb",
        type=positive,
        metavar="MB",
        help="memory that all workers of this machine may use (default: all there is)",
    )
    group.add_argument("--scheduler", metavar="ADDRESS", help="use a Dask scheduler that runs, as in tcp://host:8786")
    group.add_argument("--cluster", choices=QUEUES, help="ask a batch queue for workers, by dask-jobqueue")
    group.add_argument(
        "--config", type=Path, metavar="YAML", help="of --cluster: cores, memory, queue, walltime, … and jobs"
    )
    group.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="folder for what workers put aside; with --cluster one that all machines share",
    )


def run(options: argparse.Namespace) -> int:
    """Fit whoever has no result yet, and make what the group gives."""
    _check_few_shot(options)
    people = read_people(options)
    outcomes = fit_people(options, people)
    missing = {outcome.name: outcome.text for outcome in outcomes if outcome.status == "failed"}
    if len(missing) == len(people):
        return SOME_FAILED
    failed = group_people(options, people, missing).failed
    return SOME_FAILED if missing or failed else 0


def group_people(options: argparse.Namespace, people: list[Person], missing: dict[str, str]) -> Group:
    """Make the group's products, and say where."""
    protocol = None
    _check_few_shot(options)
    if options.few_shot is not None:
        protocol = FewShot(
            counts=tuple(sorted(set(options.few_shot))),
            n_draws=options.n_draws,
            test=options.test,
            places=options.places,
            random_state=options.random_state,
            n_people=options.few_shot_people,
        )
    chosen = GroupOptions(places=options.places, few_shot=protocol, max_items=options.max_items)
    with progress_bar("leaving people out", "people") as progress:
        group = make_group(
            options.output_dir,
            people,
            _read_fit_options(options),
            chosen,
            _read_workers(options),
            missing=missing,
            progress=progress,
        )
    print(f"group of {group.n_people}: {'memory, tables, report' if group.made else 'as it was'} -> {group.folder}")
    return group


def _check_few_shot(options: argparse.Namespace) -> None:
    if options.few_shot_people is not None and options.few_shot is None:
        raise InputError("--few-shot-people belongs to --few-shot: say from how many images.")


def fit_people(options: argparse.Namespace, people: list[Person]) -> list[Outcome]:
    """Fit, and say in one line how it went."""
    with progress_bar("fitting people", "people") as progress:
        outcomes = fit_cohort(
            people,
            _read_fit_options(options),
            options.output_dir,
            _read_workers(options),
            voxels_per_task=options.voxels_per_task,
            overwrite=options.overwrite,
            progress=progress,
        )
    counts = {status: [o.name for o in outcomes if o.status == status] for status in ("fitted", "kept", "failed")}
    parts = [f"{len(names)} {status}" for status, names in counts.items() if names]
    failed = counts["failed"]
    who = f" ({', '.join(failed[:5])}{' …' if len(failed) > 5 else ''})" if failed else ""
    print(
        f"{len(people)} {'person' if len(people) == 1 else 'people'}: {', '.join(parts)}{who} -> {options.output_dir}"
    )
    return outcomes


def read_people(options: argparse.Namespace) -> list[Person]:
    """List the people that options name."""
    everybody = {"mask": tuple(options.mask), "rois": tuple(options.rois), "ncsnr": tuple(options.ncsnr)}
    if options.people.is_file():
        given = [name for name in ("task", "space", "desc") if getattr(options, name) is not None]
        if given:
            raise InputError(f"--{given[0]} chooses among the files of a BIDS folder, but {options.people} is a table.")
        return people_of_table(options.people, options.participant_label, PersonFiles((), **everybody))
    tree = BidsTree(options.people, task=options.task, space=options.space, desc=options.desc, **everybody)
    return people_of_tree(tree, options.participant_label)


def _read_fit_options(options: argparse.Namespace) -> FitOptions:
    """Collect how people are fitted."""
    data = ("features", "image_ids", "zscore", "n_context", "test", "random_state", "outside")
    encoder = ("encoder", "prior", "checkpoint", "device", "precision", "threads")
    return FitOptions(**{name: getattr(options, name) for name in (*data, *encoder)})


def _read_workers(options: argparse.Namespace) -> Workers:
    """Collect where the work is done."""
    if options.cluster is None and options.config is not None:
        raise InputError("--config belongs to --cluster: say which queue it is for.")
    if options.cluster is not None and options.config is None:
        raise InputError(f"--cluster {options.cluster} needs --config FILE, which says what a job may use.")
    config: dict[str, Any] | None = None
    if options.cluster is not None:
        config = read_queue_config(options.config, options.cluster)
    return Workers(
        n_workers=options.n_workers,
        threads=options.threads,
        memory=None if options.mem_mb is None else options.mem_mb * 10**6,
        scheduler=options.scheduler,
        queue=options.cluster,
        queue_config=config,
        folder=options.work_dir,
    )
