"""Where a training run stands, on disk: enough to go on exactly, and a log to read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from braincorl.checkpoint import read_pickled_tensors
from braincorl.errors import FileFormatError, InputError, OutputError
from braincorl.storage.files import atomic_file, first_line

STATE, LOG = "state.pt", "log.tsv"


@dataclass
class State:
    """Where a run stands.

    Attributes
    ----------
    stage, step
        The next step to take, of which stage.
    best
        Best score on the stage's validation set.
    stale
        Validations since.
    rows
        The log so far.
    losses
        Of the steps since the last row.
    """

    stage: int = 0
    step: int = 0
    best: float = -math.inf
    stale: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def write_state(folder: Path, content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the state and the log, each whole or not at all.

    Parameters
    ----------
    folder
        Of the run.
    content
        Tensors and plain values.
    rows
        Of the log, one per validation.

    Raises
    ------
    OutputError
        If the disk is full, or the folder cannot be written; what was saved before is kept.
    """
    with atomic_file(folder / STATE) as path:
        try:
            torch.save(dict(content), path)
        except RuntimeError as error:  # PyTorch's writer does not say what the system answered
            raise OutputError(
                f"{folder / STATE} cannot be written: free some space, and give the same command again to go on from "
                "what was saved before."
            ) from error
    write_log(folder, rows)


def write_log(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the log, whole or not at all; errors are those of `write_state`."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["\t".join(names), *("\t".join(_cell(row.get(name)) for name in names) for row in rows)]
    with atomic_file(folder / LOG) as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_state(folder: Path, digest: str) -> dict[str, Any] | None:
    """Read the state of a run, or None if there is none.

    Raises
    ------
    FileFormatError
        If it is damaged.
    InputError
        If it is of another recipe, or of other files.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = read_pickled_tensors(path, "state of a training run")
    except FileFormatError as error:
        reason = first_line(error.__cause__ or error)
        raise FileFormatError(f"{path} is damaged ({reason}): remove it to begin anew.") from error
    if not isinstance(content, dict) or not {"recipe", "network", "best", "optimizer", "state"} <= set(content):
        raise FileFormatError(f"{path} is no state of a training run: choose another folder.")
    if content["recipe"] != digest:
        raise InputError(f"{folder} holds a run of another recipe, or its files have changed: choose another folder.")
    return content


def _cell(value: Any) -> str:
    if value is None:
        return "n/a"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
