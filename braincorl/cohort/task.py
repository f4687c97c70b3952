"""`fit_one`: one person of a cohort, from files to a folder of results, by the same calls as `braincorl fit`.

It is the task that workers are given. What goes wrong with a person comes back as one line and stops nobody else;
results are whole or absent, so a task that died with its worker is simply done again.
"""

import contextlib
import logging
import os
import shlex
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from braincorl.cohort.people import Features, Person, PersonFiles, describe_files
from braincorl.datasets import SubjectData, load_subject
from braincorl.encoders import LinearEncoder
from braincorl.encoders.choice import ENCODERS, NETWORK_ENCODER, PRIOR_ENCODER, SPACES_ENCODER, make_encoder
from braincorl.errors import BraincorlError, InputError, OutputError
from braincorl.features import FeatureTable
from braincorl.features.store.feature_files import load_spaces, read_names
from braincorl.fits import Fit, describe, fit_person
from braincorl.fits.folder import bids_prefix, read_config
from braincorl.fits.maps import Outside
from braincorl.priors import load_prior
from braincorl.storage.files import first_line, lock_file, one_line
from braincorl.storage.result_folders import check_destination, holds_result
from braincorl.threads import limited_threads

logger = logging.getLogger(__name__)

CHOICES = ("context", "n_context", "test")  # ways to say which images are fitted; a person has at most one


@dataclass(frozen=True)
class FitOptions:
    """How people are fitted; named and meant like the options of `braincorl fit`.

    Attributes
    ----------
    features, image_ids
        Feature file, or name -> file for several feature spaces; names of an `.npy` file.
    encoder, prior, checkpoint, device, precision
        As for `braincorl.encoders.choice.make_encoder`; `prior` is a file or a shipped name.
    zscore
        Scaling of the responses.
    context
        Text file with the images to fit on.
    n_context, random_state
        Number of images to be drawn at random, and the seed.
    test
        Text file with images to score on: each person is fitted on the others.
    outside
        What voxels outside the mask get in maps.
    threads
        Threads of linear algebra while one person is fitted. It is part of the result: sums are added up in another
        order by other numbers of threads.
    """

    features: Features | None = None
    image_ids: Path | None = None
    encoder: str | None = None
    prior: str | None = None
    checkpoint: Path | None = None
    device: str | None = None
    precision: str | None = None
    zscore: Literal["none", "session"] = "none"
    context: Path | None = None
    n_context: int | None = None
    test: Path | None = None
    random_state: int = 0
    outside: Outside = "nan"
    threads: int = 1

    def __post_init__(self) -> None:
        given = [name for name in CHOICES if getattr(self, name) is not None]
        if len(given) > 1:
            names = " and ".join(name.replace("_", "-") for name in given)
            raise InputError(f"{names} contradict each other: choose one way to say which images are fitted.")
        if self.encoder is not None and self.encoder not in (*ENCODERS, PRIOR_ENCODER, SPACES_ENCODER):
            raise InputError(f"encoder is {self.encoder!r}, expected one of {', '.join(ENCODERS)}, {PRIOR_ENCODER}.")
        if self.threads < 1:
            raise InputError(f"threads is {self.threads}, expected at least 1.")

    def of(self, person: Person) -> "FitOptions":
        """Options of one person, whose own come first."""
        own: dict[str, Any] = dict(person.own)
        if own.keys() & set(CHOICES):
            own = {**dict.fromkeys(CHOICES), **own}
        return replace(self, **own)

    @property
    def encoder_name(self) -> str:
        """Encoder that is used where none is named."""
        return self.encoder or (SPACES_ENCODER if isinstance(self.features, Mapping) else NETWORK_ENCODER)


@dataclass(frozen=True)
class Outcome:
    """What became of a person.

    Attributes
    ----------
    name
        BIDS label.
    status
        "fitted"; "kept" where an earlier run had done it; "busy" where another run is at it; "failed".
    text
        What there is to say in one line: accuracy, or the reason of a failure.
    warnings
        Lines that the fit logged.
    seconds
        Of each step: features, responses, encoder, saving.
    processor_seconds
        Of the worker's process in each step; fewer than `seconds` where it waited for files, or shared its core.
    peak_bytes
        Largest memory of the worker until then.
    trace
        Of a failure that is nobody's mistake: where in the code.
    """

    name: str
    status: Literal["fitted", "kept", "busy", "failed"]
    text: str = ""
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    processor_seconds: Mapping[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    trace: str = ""


@dataclass(frozen=True)
class FitTask:
    """One person, everything that a worker needs to fit them, and where the result goes.

    Attributes
    ----------
    person, options
        Who and how.
    folder
        Of the cohort; the result is the folder of the person's name in it.
    overwrite
        Replace an earlier result.
    """

    person: Person
    options: FitOptions
    folder: Path
    overwrite: bool = False

    @property
    def name(self) -> str:
        """BIDS label of the person."""
        return self.person.name


def fit_one(task: FitTask) -> Outcome:
    """Fit one person and write their folder; never raises what is about this person alone.

    Parameters
    ----------
    task
        Who, how, and where to.

    Returns
    -------
    Outcome
    """
    target, lines = task.folder / task.name, list[str]()
    try:
        with collected(lines):
            if holds_result(target, "fit") and not task.overwrite:
                return kept(task, target)
            check_destination(target, overwrite=task.overwrite, kind="fit")
            with claimed(task.folder / f".{task.name}.lock") as ours:
                if not ours:
                    return Outcome(task.name, "busy")
                if holds_result(target, "fit") and not task.overwrite:  # finished while we asked
                    return kept(task, target)
                text, clock = _fit(task, target)
    except Exception as error:
        if isinstance(error, OutputError) and holds_result(target, "fit") and not task.overwrite:
            return kept(task, target)  # by another run, where the file system has no locks
        return failure(task.name, error, lines)
    return Outcome(task.name, "fitted", text, tuple(lines), clock.seconds, clock.processor, peak_memory())


def failure(name: str, error: Exception, lines: Sequence[str]) -> Outcome:
    """Say in one line why a person failed; a bug, or a library's error, must not stop the others, nor go unseen.

    Parameters
    ----------
    name
        BIDS label of the person.
    error
        That is being handled.
    lines
        What was logged before.

    Returns
    -------
    Outcome
        With the trace of an error that is nobody's mistake.
    """
    if isinstance(error, BraincorlError):
        return Outcome(name, "failed", one_line(error), tuple(lines))
    if isinstance(error, MemoryError):
        reason = "out of memory: use a smaller mask, fewer images or fewer workers."
        return Outcome(name, "failed", reason, tuple(lines))
    trace = "".join(traceback.format_exception(error))
    return Outcome(name, "failed", f"{type(error).__name__}: {first_line(error)}", tuple(lines), trace=trace)


def kept(task: FitTask, target: Path) -> Outcome:
    """Say that a person is done, if from the same files."""
    if isinstance(task.person.source, PersonFiles):
        made = [Path(name).name for name in read_config(target).get("betas") or []]
        asked = [path.name for path in task.person.source.betas]
        if made != asked:
            raise InputError(
                f"{target} was fitted from other betas ({', '.join(made[:2]) or 'unknown'} …, now {asked[0]} …): "
                "choose another output folder, or pass --overwrite."
            )
    return Outcome(task.name, "kept")


def _fit(task: FitTask, target: Path) -> tuple[str, "Clock"]:
    """Fit and save; the accuracy in a line, and the seconds of each step."""
    options, clock = task.options.of(task.person), Clock()
    with limited_threads(options.threads, torch=options.encoder_name in (NETWORK_ENCODER, PRIOR_ENCODER)):
        encoder = make_person_encoder(options)
        table = person_features(task.name, options)
        clock.stop("features")
        files = task.person.files()
        subject = read_responses(task.name, files, options, table)
        clock.stop("responses")
        fit = fit_responses(task, files, subject, table, encoder)
        clock.stop("encoder")
        fit.save(target, overwrite=task.overwrite, outside=options.outside)
        clock.stop("saving")
    return describe_fit(fit), clock


def fit_responses(
    task: FitTask, files: PersonFiles, subject: SubjectData, table: FeatureTable, encoder: LinearEncoder
) -> Fit:
    """Fit a person, or a block of their voxels, as the task says; errors are those of `fit_person`."""
    options = task.options.of(task.person)
    return fit_person(
        subject,
        table,
        encoder,
        context=_context(options, subject),
        random_state=options.random_state,
        prefix=bids_prefix(files.betas[0], subject.name),
        notes={"command": fit_command(task, files), **_notes(options, files)},
    )


def describe_fit(fit: Fit) -> str:
    """Say in one line what was fitted, and how accurate it is where that is known."""
    text = f"{fit.encoder.coef_.shape[0]} voxels from {len(fit.context)} images"
    return f"{text}; {describe(fit.scores, fit.config['n_left_out'])}" if fit.scores else text


def _notes(options: FitOptions, files: PersonFiles) -> dict[str, Any]:
    """Where a fit comes from, as `braincorl fit` writes it into config.json."""
    return {
        "features": options.features,
        **describe_files(files),
        "prior": options.prior,
        "checkpoint": options.checkpoint,
    }


def fit_command(task: FitTask, files: PersonFiles) -> str:
    """Write the `braincorl fit` that repeats one person's fit alone, with `OMP_NUM_THREADS` set to the task's threads.

    Its output folder is the person's name, wherever the cohort lies: the same people give the same bytes in any place.

    Parameters
    ----------
    task
        Who, how, and where to.
    files
        Of the person.

    Returns
    -------
    str
        To be typed.
    """
    options, words = task.options.of(task.person), ["braincorl", "fit"]
    spaces = options.features if isinstance(options.features, Mapping) else {"": options.features}
    for name, path in spaces.items():
        words += ["--features", f"{name}={path}" if name else str(path)]
    for option in ("betas", "trials", "mask", "rois", "ncsnr"):
        if paths := getattr(files, option):
            words += [f"--{option}", *map(str, paths)]
    # Everything but the test's images is listed by the fit itself.
    context = f"{task.name}/context.txt" if options.test is not None else options.context
    given: dict[str, Any] = {
        "subject": task.name,
        "zscore": None if options.zscore == "none" else options.zscore,
        "context": context,
    }
    for option in ("image_ids", "encoder", "prior", "checkpoint", "device", "precision", "n_context"):
        given[option] = getattr(options, option)
    given["random_state"] = options.random_state or None
    given["outside"] = None if options.outside == "nan" else options.outside
    for option, value in given.items():
        if value is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--output-dir", task.name])


def _context(options: FitOptions, subject: SubjectData) -> Any:
    """Images to fit on, as `fit_person` takes them."""
    if options.context is not None:
        return read_names(options.context)
    if options.test is None:
        return options.n_context
    images = subject.image_ids
    context = images[~np.isin(images, read_names(options.test))]
    if context.size == images.size:
        raise InputError(f"{options.test} names none of the {images.size} images: check the names.")
    return context.tolist()


def make_person_encoder(options: FitOptions) -> LinearEncoder:
    """Make the encoder that options name, not fitted yet."""
    network = {name: getattr(options, name) for name in ("checkpoint", "device", "precision")}
    given = {name: value for name, value in network.items() if value is not None}
    prior = None if options.prior is None else _read_prior(options.prior, stamp(Path(options.prior)))
    return make_encoder(options.encoder_name, prior, **given)


def read_responses(name: str, files: PersonFiles, options: FitOptions, table: FeatureTable) -> SubjectData:
    """Read a person's responses to images that have features; errors are those of `load_subject`."""
    return load_subject(
        files.betas,
        files.trials,
        files.mask or None,
        rois=files.rois,
        zscore=options.zscore,
        images=table.image_ids.tolist(),
        ncsnr=files.ncsnr or None,
        name=name,
    )


def person_features(name: str, options: FitOptions) -> FeatureTable:
    """Read the features that one person is fitted with.

    Raises
    ------
    InputError
        If none are named, or a file is missing.
    """
    if options.features is None:
        raise InputError(f"{name} has no features: pass --features, or a column 'features'.")
    return read_table(options.features, options.image_ids)


def read_table(features: Features, image_ids: Path | None) -> FeatureTable:
    """Read features, or those of several named spaces, joined; a worker reads them once for all its people."""
    files = tuple(features.items()) if isinstance(features, Mapping) else (("", features),)
    return _read_table(files, image_ids, tuple(stamp(path) for _, path in files))


@lru_cache(maxsize=1)
def _read_table(files: tuple[tuple[str, Path], ...], image_ids: Path | None, _stamps: tuple[Any, ...]) -> FeatureTable:
    spaces = dict(files)
    return load_spaces(spaces.get("", spaces), image_ids)


@lru_cache(maxsize=1)
def _read_prior(prior: str, _stamp: Any) -> Any:
    return load_prior(prior)


def stamp(path: Path) -> tuple[int, ...]:
    """Tell a file from its later states, so that what is kept of it in memory is not that of an older one."""
    try:
        found = path.stat()
    except OSError:  # a shipped name, or a file that is missing and will be named
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Take a person for this process, so that two runs into one folder share the work.

    Yields
    ------
    bool
        Whether nobody else has it. A process that is killed claims nothing any longer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("ab")
        try:
            lock_file(file, path)
        except OutputError:
            file.close()
            yield False
            return
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()  # its last owner took the name away in between
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        file.close()


@contextmanager
def collected(lines: list[str]) -> Iterator[None]:
    """Put what is logged in this thread into a list, to be shown with the person's name."""
    log, thread = logging.getLogger("braincorl"), threading.get_ident()

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread and record.levelno >= logging.WARNING:
                lines.append(one_line(record.getMessage()))

    handlers = log.handlers
    # In a worker's thread others may log at the same time; alone in a process, what is collected is not shown twice.
    alone = threading.current_thread() is threading.main_thread()
    collector = Collector()
    log.handlers = [collector] if alone else [*handlers, collector]
    try:
        yield
    finally:
        log.handlers = handlers if alone else [handler for handler in log.handlers if handler is not collector]


class Clock:
    """Seconds of one step after the other, and processor seconds of this process in them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self._last = time.perf_counter(), time.process_time()

    def stop(self, name: str) -> None:
        """End a step."""
        now = time.perf_counter(), time.process_time()
        self.seconds[name], self.processor[name] = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now


def peak_memory() -> int:
    """Largest memory of this process so far, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(largest if sys.platform == "darwin" else largest * 1024)
