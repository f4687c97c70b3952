"""Trials tables: which image each volume of the betas shows.

A tab-separated table with one row per volume, in order. Column `image` names the image; a cell that is empty or `n/a`
marks a volume that shows none, which is left out. Optional columns are `session` and `run`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from braincorl.datasets.file_names import blanked, check_agree, identity, plain
from braincorl.datasets.trials.same import check_different
from braincorl.errors import InputError
from braincorl.storage.files import read_text, text_lines


@dataclass(frozen=True)
class TrialsTable:
    """What every trial showed, and in which session.

    Attributes
    ----------
    images
        Image of each trial (n_trials,); "" where no image was shown.
    sessions
        Session of each trial (n_trials,); "" where unknown. Numbers are without leading zeros and `ses-`, so that
        `ses-01` and `1` are one session.
    """

    images: npt.NDArray[np.str_]
    sessions: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return int(self.images.size)

    def rows(self, part: slice) -> "TrialsTable":
        """Give some of the trials, with all that is known of each."""
        return replace(self, **{each.name: getattr(self, each.name)[part] for each in fields(self)})


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
    header, rows = read_cells(path)
    if "image" not in header:
        by_commas = len(header) == 1 and any(sign in header[0] for sign in ",;")
        remedy = "it looks comma-separated, save it with tabs" if by_commas else "name the column of image names so"
        raise InputError(
            f"{path} has columns {header} but none named 'image', which every trials table needs: {remedy}."
        )
    images = _column(rows, header, "image", str(path))
    sessions = [plain(name) for name in _column(rows, header, "session", str(path))]
    return TrialsTable(np.asarray(images, dtype=np.str_), np.asarray(sessions, dtype=np.str_))


def read_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a tab-separated table.

    Raises
    ------
    InputError
        If it cannot be read, two columns have one name, or a row is of another length than the header.
    """
    lines = text_lines(read_text(path, "tab-separated text table").rstrip("\r\n"))
    header = [name.strip() for name in lines[0].split("\t")] if lines else []
    if len(set(header)) < len(header):
        raise InputError(f"{path} has columns {header}: every column needs a name of its own.")
    # In a table of one column a blank line is a volume without an image; in others it is nothing.
    rows = [line.split("\t") for line in lines[1:] if line or len(header) == 1]
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(f"{path}, line {number}: {len(row)} cells under {len(header)} columns.")
    return header, rows


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
        If the number of tables or rows does not fit, names contradict one another, or a betas file is given twice.
    """
    check_different(betas, "betas")
    _check_names(paths, betas)
    if len(trials) == 1 and len(betas) > 1:
        _check_rows(len(trials[0]), sum(n_volumes), f"{paths[0]} (one table for {len(betas)} betas files)", "they")
        ends = np.cumsum(n_volumes)
        parts = [trials[0].rows(slice(end - n, end)) for end, n in zip(ends, n_volumes, strict=True)]
    elif len(trials) == len(betas):
        for table, path, file, n in zip(trials, paths, betas, n_volumes, strict=True):
            _check_rows(len(table), n, str(path), str(file))
        parts = list(trials)
    else:
        raise InputError(
            f"{len(trials)} trials tables for {len(betas)} betas files: pass one table per file, in order, "
            "or one for all."
        )
    named = [_session_in_name(file) for file in betas]
    for part, file, session in zip(parts, betas, named, strict=True):
        _check_order(part, file, session, named)
    return [
        replace(part, sessions=np.full(len(part), session)) if session and not (part.sessions != "").any() else part
        for part, session in zip(parts, named, strict=True)
    ]


def _check_names(paths: Sequence[Path], betas: Sequence[Path]) -> None:
    """Refuse betas of two people, and tables that by their names are of other betas than they are given for."""
    people = {plain(label): file for file in betas if (label := identity(file).get("sub")) is not None}
    if len(people) > 1:
        first, second = list(people.values())[:2]
        raise InputError(f"the betas are of two people, {first} and {second}: pass those of one.")
    if len(paths) in (1, len(betas)):
        for path, file in zip(paths if len(paths) > 1 else [paths[0]] * len(betas), betas, strict=True):
            check_agree(path, file)


def _column(rows: list[list[str]], header: list[str], name: str, source: str) -> list[str]:
    """Cells of one column, "" where blank or where there is no such column."""
    if name not in header:
        return [""] * len(rows)
    return blanked([row[header.index(name)] for row in rows], f"{source}, column '{name}'")


def _check_rows(n_rows: int, n_volumes: int, table: str, file: str) -> None:
    if n_rows != n_volumes:
        has = "have" if file == "they" else "has"
        raise InputError(
            f"{table} has {n_rows} rows but {file} {has} {n_volumes} volumes: one row per volume, in order "
            "(write n/a for a volume without an image)."
        )


def _session_in_name(file: Path) -> str:
    return plain(identity(file).get("ses", ""))


def _check_order(table: TrialsTable, file: Path, session: str, named: Sequence[str]) -> None:
    """Refuse a table that states, for the volumes of one file, another session than the file is named after.

    Sessions that are named otherwise, as after their dates, contradict nothing unless another file has that name.
    """
    others = {name for name in named if name != session} - {""}
    for stated in np.unique(table.sessions).tolist():
        if stated in others or (session.isdecimal() and stated.isdecimal() and stated != session):
            raise InputError(
                f"the trials table says session '{stated}' for volumes of {file}: pass the betas files in the order of "
                "the table (a shell sorts ses-10 before ses-2)."
            )
