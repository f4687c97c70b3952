"""Who is to be fitted, and from which files: a folder of BIDS derivatives, or a table of people and files.

Nothing of a person is opened here. A hundred thousand people are listed in seconds, and one whose files are missing or
damaged is noticed by the task that fits them, and named.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braincorl.datasets.bids import find_files, find_person
from braincorl.datasets.file_names import plain
from braincorl.errors import InputError
from braincorl.names import natural_order
from braincorl.storage.files import read_text, text_lines

Features = Path | Mapping[str, Path]


@dataclass(frozen=True)
class PersonFiles:
    """One person's files, as `braincorl fit` takes them.

    Attributes
    ----------
    betas, trials, mask, rois, ncsnr
        As for `load_subject`; a prepared person is a single betas file.
    """

    betas: tuple[Path, ...]
    trials: tuple[Path, ...] = ()
    mask: tuple[Path, ...] = ()
    rois: tuple[Path, ...] = ()
    ncsnr: tuple[Path, ...] = ()


@dataclass(frozen=True)
class BidsTree:
    """Where in a folder of BIDS derivatives a person's files are; the parameters of `load_bids`.

    Attributes
    ----------
    root
        Folder with `sub-…` in it.
    task, space, desc
        Which betas, where there are several.
    mask, ncsnr
        Files for everybody, where a person has several or none.
    rois
        Region files for everybody, beside a person's own.
    """

    root: Path
    task: str | None = None
    space: str | None = None
    desc: str | None = None
    mask: tuple[Path, ...] = ()
    ncsnr: tuple[Path, ...] = ()
    rois: tuple[Path, ...] = ()

    def files(self, name: str) -> PersonFiles:
        """Find the files of one person.

        Raises
        ------
        InputError
            If they are missing or ambiguous.
        """
        found = find_files(
            self.root,
            name,
            task=self.task,
            space=self.space,
            desc=self.desc,
            mask=self.mask or None,
            ncsnr=self.ncsnr or None,
        )
        return PersonFiles(
            betas=tuple(found.betas),
            trials=tuple(found.trials),
            mask=tuple(found.mask),
            rois=(*found.rois, *self.rois),
            ncsnr=tuple(found.ncsnr),
        )


@dataclass(frozen=True)
class Person:
    """Somebody to be fitted: a name, where the files are, and what differs from the others.

    Attributes
    ----------
    name
        BIDS label, as in `sub-01`; the name of the folder of results.
    source
        Files, or the tree that they are found in.
    own
        Options of this person alone, named as those of `FitOptions`.
    """

    name: str
    source: PersonFiles | BidsTree
    own: tuple[tuple[str, Any], ...] = ()

    def files(self) -> PersonFiles:
        """Files of this person.

        Raises
        ------
        InputError
            If they are missing or ambiguous.
        """
        return self.source.files(self.name) if isinstance(self.source, BidsTree) else self.source


def people_of_tree(tree: BidsTree, labels: Iterable[str] = ()) -> list[Person]:
    """List the people of a folder of BIDS derivatives.

    Parameters
    ----------
    tree
        The folder.
    labels
        Who of them, with or without `sub-`; everybody by default.

    Returns
    -------
    list of Person
        In the order of their labels.

    Raises
    ------
    InputError
        If the folder does not exist or holds nobody, or a label is nobody's.
    """
    if not tree.root.is_dir():
        raise InputError(f"{tree.root} is neither a folder of BIDS derivatives nor a table of people (.tsv).")
    wanted = list(labels)
    if wanted:
        names = [find_person(tree.root, label).name for label in wanted]
    else:
        names = [path.name for path in tree.root.glob("sub-*") if path.is_dir()]
    if not names:
        raise InputError(f"{tree.root} holds no folder sub-…: pass a folder of BIDS derivatives, or a table (.tsv).")
    return [Person(name, tree) for name in sorted(set(names), key=natural_order)]


# Columns of a table of people: those that name files, and those that are one person's options.
FILES = ("betas", "trials", "mask", "rois", "ncsnr")
OPTIONS = ("features", "image-ids", "zscore", "context", "n-context", "test", "random-state")
LABELS = ("subject", "participant_id")


def people_of_table(path: str | Path, labels: Iterable[str] = (), common: PersonFiles | None = None) -> list[Person]:
    """Read a table of people and their files.

    Parameters
    ----------
    path
        Tab-separated, a row per person. Column `subject` (or `participant_id`) is the label; the other columns are
        named like the options of `braincorl fit`: `betas`, and where needed `trials`, `mask`, `rois`, `ncsnr`,
        `features`, `image-ids`, `zscore`, `context`, `n-context`, `test`, `random-state`. Several files in a cell are
        written as one would type them, `*` and quotes included; names are relative to the table. Empty or `n/a` is
        nothing.
    labels
        Who of them, with or without `sub-`; everybody by default.
    common
        Mask, regions and ncsnr of people whose row names none.

    Returns
    -------
    list of Person
        In the order of the rows.

    Raises
    ------
    InputError
        If the table cannot be read, a column is unknown, a person is named twice, or a label is nobody's.
    """
    path = Path(path)
    header, rows = _read_rows(path)
    people = []
    for number, cells in rows:
        where = f"{path}, line {number}"
        given = {name: cell for name, cell in zip(header, cells, strict=True) if cell not in ("", "n/a")}
        name = _check_label(next((given[label] for label in LABELS if label in given), ""), where)
        files = {column: _files(given[column], path.parent, where) for column in FILES if column in given}
        if "betas" not in files:
            raise InputError(f"{where}: {name} has no betas: name a file, or take the row out.")
        if common is not None:
            missing = (column for column in ("mask", "rois", "ncsnr") if column not in files)
            files |= {column: getattr(common, column) for column in missing}
        own = {column: _option(column, given[column], path.parent, where) for column in OPTIONS if column in given}
        people.append(Person(name, PersonFiles(**files), tuple((k.replace("-", "_"), v) for k, v in own.items())))
    names = [person.name for person in people]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError(f"{path} names {twice[0]} in several rows: a person has one row.")
    return _choose(people, list(labels), path)


def _check_label(text: str, where: str) -> str:
    """Give a label of letters and digits with `sub-` in front, and refuse any other."""
    label = text.removeprefix("sub-")
    if not (label.isascii() and label.isalnum()):
        raise InputError(f"{where}: '{text}' is no label of a person, expected letters and digits, as in sub-01.")
    return f"sub-{label}"


def _choose(people: Sequence[Person], labels: Sequence[str], path: Path) -> list[Person]:
    if not labels:
        return list(people)
    chosen = []
    for label in labels:
        plainly = plain(label.removeprefix("sub-"))
        found = [person for person in people if person.name.removeprefix("sub-") == label.removeprefix("sub-")]
        found = found or [person for person in people if plain(person.name[4:]) == plainly and plainly.isdecimal()]
        if len(found) != 1:
            raise InputError(f"{path} names {len(found)} people with the label {label}: check the label.")
        chosen += [person for person in found if person not in chosen]
    return chosen


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header, and number and cells of each row."""
    lines = text_lines(read_text(path, "tab-separated table of people").rstrip("\r\n"))
    header = [name.strip().removeprefix("--") for name in lines[0].split("\t")] if lines else []
    unknown = [name for name in header if name not in (*LABELS, *FILES, *OPTIONS)]
    if unknown or len(set(header)) < len(header) or sum(label in header for label in LABELS) != 1:
        raise InputError(
            f"{path} has the columns {', '.join(header) or 'none'}: expected subject and betas, and any of "
            f"{', '.join([*FILES[1:], *OPTIONS])}, separated by tabs, each once."
        )
    rows = [(number, [cell.strip() for cell in line.split("\t")]) for number, line in enumerate(lines, 1) if line][1:]
    for number, cells in rows:
        if len(cells) != len(header):
            raise InputError(f"{path}, line {number}: {len(cells)} cells under {len(header)} columns.")
    if not rows:
        raise InputError(f"{path} names nobody: write a row for each person.")
    return header, rows


def _files(cell: str, folder: Path, where: str) -> tuple[Path, ...]:
    """Files of a cell, relative to the table; patterns in the order of session and run."""
    try:
        words = shlex.split(cell)
    except ValueError as error:
        raise InputError(f"{where}: '{cell}' cannot be read ({error}): close every quotation mark.") from error
    found: list[Path] = []
    for word in words:
        matches = (
            sorted(folder.glob(word), key=lambda path: natural_order(str(path)))
            if _is_pattern(word)
            else [folder / word]
        )
        if not matches:
            raise InputError(f"{where}: no file is named like {word}.")
        found += matches
    return tuple(found)


def _is_pattern(word: str) -> bool:
    return any(sign in word for sign in "*?[") and not Path(word).is_absolute()


def _option(column: str, cell: str, folder: Path, where: str) -> Any:
    if column in ("n-context", "random-state"):
        if not cell.isdecimal():
            raise InputError(f"{where}: {column} is '{cell}', expected a whole number.")
        return int(cell)
    if column == "zscore":
        if cell not in ("none", "session"):
            raise InputError(f"{where}: zscore is '{cell}', expected none or session.")
        return cell
    if column == "features":
        return _read_features_option(cell, folder, where)
    files = _files(cell, folder, where)
    if len(files) != 1:
        raise InputError(f"{where}: {column} is one file, but '{cell}' are {len(files)}.")
    return files[0]


def _read_features_option(cell: str, folder: Path, where: str) -> Features:
    """Read the features of a cell: one file, or NAME=FILE for each of several feature spaces."""
    words = shlex.split(cell)
    pairs = [word.split("=", 1) for word in words if re.match(r"[A-Za-z0-9_-]+=", word)]
    if len(words) == 1 and not pairs:
        return folder / words[0]
    if len(pairs) != len(words) or len({name for name, _ in pairs}) != len(pairs):
        raise InputError(f"{where}: features are one file, or NAME=FILE for each feature space, but are '{cell}'.")
    return {name: folder / file for name, file in pairs}


def describe_files(files: PersonFiles) -> dict[str, Any]:
    """Files as `braincorl fit` notes them in config.json."""
    return {
        "betas": [str(path) for path in files.betas],
        "trials": [str(path) for path in files.trials],
        "mask": [str(path) for path in files.mask] or None,
        "rois": [str(path) for path in files.rois],
    }
