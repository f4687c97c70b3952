"""Trials tables: which image each volume of the betas shows.

A tab-separated table with one row per volume, in order. Column `image` names the image; a cell that is empty or `n/a`
marks a volume that shows none, which is left out. Optional columns are `session` and `run`.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl.errors import InputError

BLANK = ("", "n/a", "N/A", "nan")


@dataclass(frozen=True)
class TrialsTable:
    """What every trial showed, and in which session.

    Attributes
    ----------
    images
        Image of each trial (n_trials,); "" where no image was shown.
    sessions
        Session of each trial (n_trials,); "" where unknown.
    """

    images: npt.NDArray[np.str_]
    sessions: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return int(self.images.size)


def read_trials(path: str | Path) -> TrialsTable:
    """Read one trials table.

    Parameters
    ----------
    path
        Tab-separated text with a header.

    Returns
    -------
    TrialsTable

    Raises
    ------
    InputError
        If it cannot be read, has no column `image`, or rows of differing length.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a tab-separated text table: {error}.") from error
    rows = list(csv.reader(StringIO(text), delimiter="\t"))
    header = [name.strip() for name in rows[0]] if rows else []
    if "image" not in header:
        hint = " It looks comma-separated: save it with tabs." if "," in text.split("\n", 1)[0] else ""
        raise InputError(f"{path} has columns {header} but none named 'image', which every trials table needs.{hint}")
    ragged = [number for number, row in enumerate(rows, start=1) if row and len(row) != len(header)]
    if ragged:
        raise InputError(f"{path}, line {ragged[0]}: {len(rows[ragged[0] - 1])} cells under {len(header)} columns.")
    table = pd.DataFrame([row for row in rows[1:] if row], columns=header, dtype=str)
    images = table["image"].str.strip()
    sessions = table["session"].str.strip() if "session" in table else pd.Series([""] * len(table), dtype=str)
    return TrialsTable(
        np.asarray(["" if image in BLANK else image for image in images], dtype=np.str_),
        np.asarray(list(sessions), dtype=np.str_),
    )


def match_trials(
    trials: Sequence[TrialsTable], paths: Sequence[Path], betas: Sequence[Path], n_volumes: Sequence[int]
) -> list[TrialsTable]:
    """One table per betas file, from one table per file or one for all.

    Parameters
    ----------
    trials
        The tables.
    paths
        Their files, for messages.
    betas
        The betas files; `ses-` in a name is the session where the table states none.
    n_volumes
        Volumes of each betas file.

    Returns
    -------
    list of TrialsTable
        As long as `betas`, each as long as its file.

    Raises
    ------
    InputError
        If the number of tables or rows does not fit.
    """
    if len(trials) == 1 and len(betas) > 1:
        _check_rows(len(trials[0]), sum(n_volumes), f"{paths[0]} (one table for {len(betas)} betas files)", "they")
        ends = np.cumsum(n_volumes)
        parts = [
            TrialsTable(trials[0].images[end - n : end], trials[0].sessions[end - n : end])
            for end, n in zip(ends, n_volumes, strict=True)
        ]
    elif len(trials) == len(betas):
        for table, path, file, n in zip(trials, paths, betas, n_volumes, strict=True):
            _check_rows(len(table), n, str(path), str(file))
        parts = list(trials)
    else:
        raise InputError(
            f"{len(trials)} trials tables for {len(betas)} betas files: pass one table per file, in order, "
            "or one for all."
        )
    return [_with_session(part, file) for part, file in zip(parts, betas, strict=True)]


def _check_rows(n_rows: int, n_volumes: int, table: str, file: str) -> None:
    if n_rows != n_volumes:
        has = "have" if file == "they" else "has"
        raise InputError(
            f"{table} has {n_rows} rows but {file} {has} {n_volumes} volumes: one row per volume, in order "
            "(write n/a for a volume without an image)."
        )


def _with_session(table: TrialsTable, file: Path) -> TrialsTable:
    entity = re.search(r"(?:^|_)ses-([A-Za-z0-9]+)", file.name)
    if entity is None or (table.sessions != "").any():
        return table
    return TrialsTable(table.images, np.full(len(table), entity.group(1)))
