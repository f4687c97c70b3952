"""A person in blocks of voxels: a task for each block, then one that joins them; so memory is that of a block.

It is for encoders that treat each voxel by itself, and for prepared people (`braincorl data prepare`), whose responses
are stored by voxel: a block reads its own, and the task that joins them holds the result, which does not grow with
images. Blocks are of whole 64 voxels, and what is joined is, to the byte, what one fit of the person writes
(`braincorl.encoders.joining`). Blocks that are done lie in `.blocks/sub-01` until all are; a run that is given again
goes on with the others, if options and files are still those that they were made from.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl import __version__
from braincorl.cohort.people import PersonFiles
from braincorl.cohort.task import (
    Clock,
    FitTask,
    Outcome,
    claimed,
    collected,
    describe_fit,
    failure,
    fit_responses,
    kept,
    make_person_encoder,
    peak_memory,
    person_features,
    stamp,
)
from braincorl.datasets.load import read_prepared
from braincorl.datasets.trials.prepared import is_prepared, outline_prepared, read_rows
from braincorl.encoders import LinearEncoder, load_encoder
from braincorl.encoders.joining import join_voxels
from braincorl.encoders.limits import choices_at_limit, tell_limits
from braincorl.errors import BraincorlError, InputError
from braincorl.fits import Fit
from braincorl.fits.folder import hash_rows
from braincorl.storage.files import json_text
from braincorl.storage.result_folders import check_destination, holds_result, staged_directory
from braincorl.storage.tensorfile import read_tensors, write_tensors
from braincorl.threads import limited_threads

SEPARATE = ("ridge", "bayesian-ridge")  # encoders that treat each voxel by itself
WHOLE = 64  # voxels that blocks are multiples of: what is computed is then the same to the bit
KIND = "braincorl-block/1"
BLOCKS = ".blocks"


@dataclass(frozen=True)
class Block:
    """Some of a person's voxels, to be fitted.

    Attributes
    ----------
    task
        Who and how.
    start, stop
        Which of the voxels with data.
    key
        Of the prepared file: a block of another one is fitted again.
    made
        Of all else that the result depends on, the same.
    """

    task: FitTask
    start: int
    stop: int
    key: str
    made: str

    @property
    def name(self) -> str:
        """Person and block, to show."""
        return f"{self.task.name}, voxels {self.start + 1} to {self.stop}"

    @property
    def path(self) -> Path:
        """Folder of the block's result."""
        return self.task.folder / BLOCKS / self.task.name / f"{self.start:09}-{self.stop:09}"


@dataclass(frozen=True)
class Join:
    """A person whose blocks are done.

    Attributes
    ----------
    task
        Who and how.
    blocks
        All of them, in order.
    """

    task: FitTask
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        """BIDS label of the person."""
        return self.task.name


def check_separate(encoder: str, n_voxels: int) -> None:
    """Refuse to cut people into blocks of voxels for an encoder that reads all of them together.

    Raises
    ------
    InputError
        If it does, or a block is of no voxel.
    """
    if n_voxels < 1:
        raise InputError(f"voxels_per_task is {n_voxels}, expected at least 1.")
    if encoder not in SEPARATE:
        raise InputError(
            f"voxels_per_task is for encoders that treat each voxel by itself ({', '.join(SEPARATE)}), but the encoder "
            f"is {encoder}: choose one of these, or leave voxels_per_task out."
        )


def cut(task: FitTask, n_voxels: int) -> Join:
    """Cut a person into blocks.

    Parameters
    ----------
    task
        Who and how.
    n_voxels
        Of a block; rounded up to whole 64. The last one may have 63 more, since a few voxels are summed otherwise.

    Returns
    -------
    Join
        With its blocks.

    Raises
    ------
    InputError
        If the encoder reads all voxels together, or the person is not prepared.
    """
    check_separate(task.options.of(task.person).encoder_name, n_voxels)
    files = task.person.files()
    if len(files.betas) != 1 or not is_prepared(files.betas[0]):
        raise InputError(
            f"{files.betas[0]} holds all voxels of a trial together, so no block of voxels can be read alone: prepare "
            "the person with braincorl data prepare, or leave voxels_per_task out."
        )
    outline, size = outline_prepared(files.betas[0]), -(-n_voxels // WHOLE) * WHOLE
    edges = [*range(0, max(outline.space.n_voxels - WHOLE, 0) + 1, size), outline.space.n_voxels]
    made = _identify(task)
    return Join(task, tuple(Block(task, start, stop, outline.key, made) for start, stop in pairwise(edges)))


def _identify(task: FitTask) -> str:
    """Hash of the version, the options, and the sizes and times of the files that they name."""
    options, files = task.options.of(task.person), task.person.files()
    features = options.features if isinstance(options.features, Mapping) else {"": options.features}
    named = [*features.values(), options.image_ids, options.context, options.test]
    named += [path for paths in _brought(files).values() for path in paths]
    facts = {
        "version": __version__,
        "options": {name: str(value) for name, value in vars(options).items()},
        "files": [[str(path), stamp(path)] for path in named if path is not None],
    }
    return hashlib.sha256(json_text(facts, sort_keys=True).encode()).hexdigest()


def fit_block(block: Block) -> Outcome:
    """Fit a block and keep it for `join_blocks`; never raises what is about this person alone.

    Parameters
    ----------
    block
        Which.

    Returns
    -------
    Outcome
        "kept" if the block, or the person, is done.
    """
    task, lines = block.task, list[str]()
    try:
        with collected(lines):
            if _is_done(block):
                return Outcome(block.name, "kept")
            with claimed(block.path.with_suffix(".lock")) as ours:
                if not ours:
                    return Outcome(block.name, "busy")
                if _is_done(block):
                    return Outcome(block.name, "kept")
                clock = Clock()
                with limited_threads(task.options.threads, torch=False):
                    fit, n_images = _fit(block, clock)
                    with staged_directory(block.path, overwrite=True, kind="block") as folder:
                        fit.encoder.save(folder / "encoder.safetensors")
                        config = json_text(fit.config)  # as text, which keeps its order
                        header = {"config": config, "context": fit.context, "n_images": n_images, "warnings": lines}
                        header |= {"key": block.key, "made": block.made}
                        write_tensors(folder / "maps.safetensors", KIND, dict(fit.kept_maps or {}), header)
                clock.stop("saving")
    except Exception as error:
        if holds_result(task.folder / task.name, "fit") and not task.overwrite:  # another run joined them meanwhile
            return Outcome(block.name, "kept")
        return failure(block.name, error, lines)
    # Warnings are told once for the person, when the blocks are joined.
    return Outcome(block.name, "fitted", "", (), clock.seconds, clock.processor, peak_memory())


def join_blocks(join: Join) -> Outcome:
    """Write a person's folder from the blocks, and remove these; never raises what is about this person alone.

    Parameters
    ----------
    join
        Who.

    Returns
    -------
    Outcome
    """
    task, lines = join.task, list[str]()
    target = task.folder / task.name
    try:
        with collected(lines), claimed(task.folder / f".{task.name}.lock") as ours:
            if not ours:
                return Outcome(task.name, "busy")
            if holds_result(target, "fit") and not task.overwrite:  # by another run
                remove_finished(task.folder, [task.name])
                return kept(task, target)
            check_destination(target, overwrite=task.overwrite, kind="fit")
            clock = Clock()
            fit, warnings = _join(join)
            clock.stop("joining")
            fit.save(target, overwrite=task.overwrite, outside=task.options.of(task.person).outside)
            clock.stop("saving")
            remove_blocks(task.folder, task.name)
    except Exception as error:
        return failure(task.name, error, lines)
    return Outcome(task.name, "fitted", describe_fit(fit), warnings, clock.seconds, clock.processor, peak_memory())


def remove_finished(folder: Path, names: Iterable[str]) -> None:
    """Remove the blocks of people who are done, but for newer ones: those are of a run that fits them again."""
    for name in names:
        blocks = list((folder / BLOCKS / name).glob("*"))
        with contextlib.suppress(FileNotFoundError):  # another run removes them
            done = (folder / name).stat().st_mtime_ns
            if blocks and all(path.stat().st_mtime_ns <= done for path in blocks):
                remove_blocks(folder, name)


def remove_blocks(folder: Path, name: str) -> None:
    """Remove what a person's blocks left, and the folder of all blocks if nobody else's is in it."""
    shutil.rmtree(folder / BLOCKS / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # others are at work
        (folder / BLOCKS).rmdir()


def _is_done(block: Block) -> bool:
    if holds_result(block.task.folder / block.task.name, "fit") and not block.task.overwrite:
        return True
    if not holds_result(block.path, "block"):
        return False
    try:
        header = _read(block)[1]
        _encoder(block)
    except BraincorlError:  # damaged: it is fitted again
        return False
    return (header["key"], header.get("made")) == (block.key, block.made)


def _read(block: Block) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    return read_tensors(block.path / "maps.safetensors", KIND)


def _fit(block: Block, clock: Clock) -> tuple[Fit, int]:
    """Fit a block; and of how many images there are responses."""
    task, options = block.task, block.task.options.of(block.task.person)
    encoder, table = make_person_encoder(options), person_features(task.name, options)
    clock.stop("features")
    files = task.person.files()
    subject = read_prepared(
        files.betas[0],
        table.image_ids.tolist(),
        options.zscore,
        task.name,
        slice(block.start, block.stop),
        **_brought(files),
    )
    clock.stop("responses")
    fit = fit_responses(task, files, subject, table, encoder)
    clock.stop("encoder")
    return fit, subject.n_images


def _brought(files: PersonFiles) -> dict[str, tuple[Path, ...]]:
    return {name: getattr(files, name) for name in ("trials", "mask", "rois", "ncsnr")}


def _join(join: Join) -> tuple[Fit, tuple[str, ...]]:
    """Put a person's fit together, as `fit_person` would have made it; and what it would have warned of."""
    task, options = join.task, join.task.options.of(join.task.person)
    path = task.person.files().betas[0]
    outline = outline_prepared(path)
    n_voxels = outline.space.n_voxels
    if outline.key != join.blocks[0].key:
        raise InputError(f"{path} was prepared anew while its blocks were fitted: run again.")
    maps: dict[str, npt.NDArray[Any]] = {}
    headers = []
    for block in join.blocks:
        own, header = _read(block)
        headers.append({**header, "config": json.loads(header["config"])})
        for name, values in own.items():
            # Where a whole block lacks a noise ceiling, it has no such map.
            maps.setdefault(name, np.full(n_voxels, np.nan, values.dtype))[block.start : block.stop] = values
    first = headers[0]
    different = [name for name in first["config"] if name not in ("n_voxels", "responses_sha256")]
    if any(
        (header["context"], header["n_images"]) != (first["context"], first["n_images"])
        or any(header["config"].get(name) != first["config"][name] for name in different)
        for header in headers
    ):
        raise InputError(f"blocks of {task.name} were fitted otherwise than each other: pass --overwrite.")
    encoder = join_voxels((_encoder(block) for block in join.blocks), n_voxels)
    table = person_features(task.name, options)
    images = table.image_ids.tolist()
    digest = hash_rows(read_rows(path, images), (first["n_images"], n_voxels), np.dtype(np.float32))
    counts = {"n_voxels": n_voxels, "n_excluded_voxels": outline.space.n_excluded, "responses_sha256": digest}
    fit = Fit(encoder, outline.space, outline.rois, {**first["config"], **counts}, first["context"], kept_maps=maps)
    return fit, _warnings(task.name, first["warnings"], _encoder(join.blocks[0]), encoder)


def _encoder(block: Block) -> LinearEncoder:
    return load_encoder(block.path / "encoder.safetensors")


def _warnings(name: str, lines: Sequence[str], block: LinearEncoder, whole: LinearEncoder) -> tuple[str, ...]:
    """Say what the fit of a block said, but of choices at their limits what holds for all voxels."""
    said, now = (tell_limits(choices_at_limit(encoder)) for encoder in (block, whole))
    others = [line for line in lines if not said or line != f"{name}: {said}"]
    return (*others, f"{name}: {now}") if now else tuple(others)
