"""`fit_cohort`: many people to one folder of results each, and how far that is.

    people = people_of_tree(BidsTree(Path("derivatives/betas")))
    outcomes = fit_cohort(people, FitOptions(features=Path("features.npz")), "cohort", Workers(n_workers=8))

The folder is a BIDS derivative with a fit in each `sub-…`, the same bytes as `braincorl fit` writes, whatever the
number of workers. A run that is given again does what is missing. Several runs may share a folder, as the jobs of an
array do: each person is fitted by one of them.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from braincorl import __version__
from braincorl.cohort.blocks import Block, Join, check_separate, cut, fit_block, join_blocks, remove_finished
from braincorl.cohort.people import Person
from braincorl.cohort.task import FitOptions, FitTask, Outcome, failure, fit_one
from braincorl.cohort.workers import Runner, T, Workers
from braincorl.datasets.load import open_subject
from braincorl.datasets.trials.prepared import is_prepared, outline_prepared
from braincorl.errors import InputError, OutputError
from braincorl.fits.folder import BIDS_VERSION
from braincorl.storage.files import GENERATOR, Progress, ProgressCounter, atomic_file, json_text, read_json, write_json
from braincorl.storage.result_folders import holds_result

logger = logging.getLogger(__name__)

OPTIONS = "cohort.json"
SECONDS_BETWEEN_LOOKS = 1.0  # at what workers have done: little beside a person, and nothing for the processor
MEMORY_OF_A_WORKER = 700 * 2**20  # Python with its libraries
COPIES = 5  # of the responses, at the peak of a fit

README = """# A cohort of voxelwise encoders

Written by braincorl {version}. Each folder `sub-…` is a fit, as `braincorl fit` writes it; `group` is what they give
together. `cohort.json` holds the options that all people share.
"""
# Results in here are derivatives of their own, which the validator does not look into.
IGNORED = ("sub-*/*", "sub-*/**", "group", "few-shot", OPTIONS, "*.lock")


def fit_cohort(
    people: Sequence[Person],
    options: FitOptions,
    folder: str | Path,
    workers: Workers | None = None,
    *,
    voxels_per_task: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Fit people who have no result yet, each on its own.

    Parameters
    ----------
    people
        Whom, from `people_of_tree` or `people_of_table`.
    options
        How.
    folder
        Of the cohort; it may hold people from earlier runs with the same options.
    workers
        Where; by default as many processes as cores and memory allow. In a script, call this below
        `if __name__ == "__main__":`, since workers import the script.
    voxels_per_task
        Fit each person in blocks of so many voxels, and join them: results are the same, and a worker holds one block
        (`braincorl.cohort.blocks`). For prepared people, and the encoders ridge and bayesian-ridge. By default a person
        is one task.
    overwrite
        Fit everybody again.
    progress
        Called with (people done, people to do); with blocks, these count as well.

    Returns
    -------
    list of Outcome
        In the order of people; one that failed says why.

    Raises
    ------
    InputError
        If the folder holds people fitted with other options, or nobody is to be fitted.
    OutputError
        If the folder cannot be written to.
    """
    if not people:
        raise InputError("there is nobody to fit: pass people.")
    folder = Path(folder)
    workers = workers or Workers()
    if voxels_per_task is not None:
        check_separate(options.encoder_name, voxels_per_task)
    prepare_folder(folder, options, overwrite=overwrite)
    tasks = [FitTask(person, options, folder, overwrite) for person in people]
    todo = [task for task in tasks if overwrite or not holds_result(folder / task.name, "fit")]
    missing = {task.name for task in todo}
    outcomes = {task.name: fit_one(task) for task in tasks if task.name not in missing}
    in_blocks = None if voxels_per_task is None else _fit_in_blocks(todo, voxels_per_task, workers, progress)
    for outcome in in_blocks or _fit_whole(todo, workers, progress):
        tell(outcome)
        outcomes[outcome.name] = outcome
    # Of runs that were stopped before these people were done, whole or otherwise.
    remove_finished(folder, [name for name, outcome in outcomes.items() if outcome.status != "failed"])
    return [outcomes[person.name] for person in people]


def _fit_whole(todo: Sequence[FitTask], workers: Workers, progress: Progress | None) -> Iterator[Outcome]:
    """Fit people, each as one task; outcomes as they come."""
    if not todo:
        return
    needed = memory_needed(todo[0]) if workers.is_local and workers.n_workers is None else 0
    with workers.sized(len(todo), needed).start() as runner:
        counter = ProgressCounter(len(todo), progress)
        for outcome in _until_done(runner, fit_one, todo):
            counter.add(1)
            yield outcome


def _fit_in_blocks(
    todo: Sequence[FitTask], n_voxels: int, workers: Workers, progress: Progress | None
) -> Iterator[Outcome]:
    """Fit people in blocks of voxels, then join everybody's; a person of whom a block failed has failed."""
    joins: dict[str, Join] = {}
    for task in todo:
        try:
            joins[task.name] = cut(task, n_voxels)
        except (InputError, OSError) as error:
            yield failure(task.name, error, ())
    if not joins:
        return
    blocks = [block for join in joins.values() for block in join.blocks]
    needed = memory_of_block(blocks[0]) if workers.is_local and workers.n_workers is None else 0
    with workers.sized(len(blocks), needed).start() as runner:
        counter, failed = ProgressCounter(len(blocks) + len(joins), progress), set[str]()
        person = {block.name: block.task.name for block in blocks}
        for outcome in _until_done(runner, fit_block, blocks):
            counter.add(1)
            if outcome.status == "failed" and person[outcome.name] not in failed:
                failed.add(person[outcome.name])
                yield replace(outcome, name=person[outcome.name], text=f"{outcome.name}: {outcome.text}")
        whole = [join for name, join in joins.items() if name not in failed]
        for outcome in _until_done(runner, join_blocks, whole):
            counter.add(1)
            yield outcome


def _until_done(runner: Runner, function: Callable[[T], Outcome], tasks: Sequence[T]) -> Iterator[Outcome]:
    """Outcomes as they come; people that another run is at are looked at again in the end."""
    while tasks:
        busy = []
        for task, outcome in runner.run(function, tasks):
            if isinstance(outcome, Exception):
                yield Outcome(task.name, "failed", str(outcome))
            elif outcome.status == "busy":
                busy.append(task)
            else:
                yield outcome
        tasks = busy
        if tasks:
            logger.info("%s: fitted by another run now, waiting for it", ", ".join(task.name for task in tasks[:5]))
            time.sleep(SECONDS_BETWEEN_LOOKS)


def tell(outcome: Outcome) -> None:
    """Log what a reader must know of one person."""
    for line in outcome.warnings:
        logger.warning("%s: %s", outcome.name, line)
    if outcome.trace:
        logger.error("%s: this is a fault of the program, please report it:\n%s", outcome.name, outcome.trace)
    if outcome.status == "failed":
        logger.error("%s failed: %s", outcome.name, outcome.text)
    elif outcome.status == "fitted":
        logger.info("%s: %s", outcome.name, outcome.text)


def memory_needed(task: FitTask) -> int:
    """Bytes that the task of one person, taken as typical, is thought to need; a guess from headers."""
    try:
        files = task.person.files()
        if is_prepared(files.betas[0]):
            return MEMORY_OF_A_WORKER + COPIES * files.betas[0].stat().st_size
        opened = open_subject(files.betas, files.trials, files.mask or None)
        return MEMORY_OF_A_WORKER + COPIES * 4 * opened.n_voxels * len(opened.image_ids())
    except (InputError, OSError):  # this person will fail, and be named; the next may be well
        return MEMORY_OF_A_WORKER


def memory_of_block(block: Block) -> int:
    """Bytes that the task of one block is thought to need; a guess from the person's header."""
    n_images = outline_prepared(block.task.person.files().betas[0]).n_images
    return MEMORY_OF_A_WORKER + COPIES * 4 * (block.stop - block.start) * n_images


def prepare_folder(folder: Path, options: FitOptions, *, overwrite: bool = False) -> None:
    """Make the folder of a cohort, or look whether it is one of the same options.

    Raises
    ------
    InputError
        If it holds people that were fitted with other options.
    OutputError
        If it cannot be made.
    """
    wanted = shared_options(options)
    path = folder / OPTIONS
    if path.is_file():
        made = read_json(path).get("options", {})
        different = [name for name in wanted if made.get(name) != wanted[name]]
        if different and not overwrite:
            name = different[0]
            raise InputError(
                f"{folder} holds people that were fitted with {name} {made.get(name)!r}, now {wanted[name]!r}: choose "
                "another output folder, or pass --overwrite."
            )
        if not different:
            return
    elif folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()) and not _is_ours(folder):
        raise OutputError(f"{folder} holds files that braincorl did not write: choose a new or empty output folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}.") from error
    describe_folder(folder)
    write_json(path, {"braincorl": __version__, "options": wanted})


def shared_options(options: FitOptions) -> dict[str, Any]:
    """Options that results depend on, JSON-serialisable."""
    found = {name: value for name, value in asdict(options).items() if name != "image_ids"}
    found["encoder"] = options.encoder_name
    plainly: dict[str, Any] = json.loads(json_text(found))
    return plainly


def describe_folder(folder: Path) -> None:
    """Write what makes the folder a BIDS derivative; the same bytes by every run that shares it."""
    description: Mapping[str, Any] = {
        "Name": "Voxelwise encoders of a cohort",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": GENERATOR, "Version": __version__}],
    }
    write_json(folder / "dataset_description.json", dict(description))
    for name, text in (
        ("README.md", README.format(version=__version__)),
        (".bidsignore", "".join(f"{pattern}\n" for pattern in IGNORED)),
    ):
        with atomic_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _is_ours(folder: Path) -> bool:
    path = folder / "dataset_description.json"
    made = read_json(path).get("GeneratedBy") if path.is_file() else None
    return isinstance(made, list) and any(isinstance(tool, dict) and tool.get("Name") == GENERATOR for tool in made)
