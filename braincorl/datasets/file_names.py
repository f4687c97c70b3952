"""What names and words in files and tables mean: entities, sessions, "missing". One home, so that all readers agree."""

import itertools
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from braincorl.errors import InputError
from braincorl.names import normal_name

logger = logging.getLogger(__name__)

Entities = dict[str, str]

UNNAMED = "sub-new"  # of a person whose files name none
MISSING = ("", "n/a")
# Words that programs write for a missing value, but that could be names: taken as missing, and said so.
LIKELY_MISSING = ("na", "nan", "none", "null", "<na>", "#n/a", "nil")
# Of pictures: what programs that write names of images leave out or keep.
PICTURE = re.compile(r"\.(?:png|jpg|jpeg|jpe|bmp|gif|tif|tiff|webp|ppm|pgm|jfif)$", re.IGNORECASE)
# Two files that belong together cannot differ in these.
IDENTITY = {"sub": "person", "ses": "session", "run": "run", "task": "task"}


def entities(path: Path) -> Entities:
    """Entities of a BIDS file name, such as {"sub": "01", "task": "images"}."""
    return dict(part.split("-", 1) for part in path.name.split(".")[0].split("_") if "-" in part)


def identity(path: Path) -> Entities:
    """Person, session, run and task that a file's name states, or for person and session a folder that it is in."""
    found: Entities = {}
    for folder in reversed(path.absolute().parents):
        entity = re.fullmatch(r"(sub|ses)-([A-Za-z0-9]+)", folder.name)
        if entity:
            found[entity.group(1)] = entity.group(2)
    return found | {key: value for key, value in entities(path).items() if key in IDENTITY}


def without_endings(shown: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Match names of images that are the same but for the ending of a picture's file, as `img_1` and `img_1.png`.

    Parameters
    ----------
    shown
        Names in the trials.
    wanted
        Names of features.

    Returns
    -------
    dict
        Name in the trials -> name of features. Empty where any name is in both as it stands, where some names of both
        have endings, or where two names would become one: then nothing says that they are the same images.
    """
    shown, wanted = list(shown), list(wanted)
    if set(shown) & set(wanted) or all(any(map(PICTURE.search, names)) for names in (shown, wanted)):
        return {}
    ours, theirs = ({PICTURE.sub("", name): name for name in names} for names in (shown, wanted))
    if len(ours) < len(set(shown)) or len(theirs) < len(set(wanted)):
        return {}
    found = {name: theirs[bare] for bare, name in ours.items() if bare in theirs}
    for name, other in itertools.islice(found.items(), 1):
        logger.info("names of images differ by their endings alone and are taken for the same: %s is %s", name, other)
    return found


def subject_label(path: Path) -> str:
    """BIDS label of the person in a file name, `UNNAMED` if it has none."""
    entity = re.search(r"sub-[A-Za-z0-9]+", path.name)
    return entity.group(0) if entity else UNNAMED


def plain(label: str) -> str:
    """Label without what does not tell it from another: `ses-` in front, leading zeros, and `.0` behind a number."""
    number = re.fullmatch(r"(?:ses-)?0*(\d+)(?:\.0+)?", label)
    return number.group(1) if number else label.removeprefix("ses-")


def session_numbers(sessions: int | str | Iterable[int | str]) -> list[int]:
    """Numbers of the sessions that are asked for, each once, in their order.

    Parameters
    ----------
    sessions
        Numbers, or labels such as "ses-01"; one, or several.

    Raises
    ------
    InputError
        If one is neither.
    """
    several = [sessions] if isinstance(sessions, int | str) or not isinstance(sessions, Iterable) else list(sessions)
    numbers = [plain(str(session)) for session in several]
    for session, number in zip(several, numbers, strict=True):
        if not number.isdecimal():
            raise InputError(f"sessions holds {session!r}, expected numbers from 1, or labels such as 'ses-01'.")
    return list(dict.fromkeys(map(int, numbers)))


def check_agree(first: Path, second: Path) -> None:
    """Refuse two files whose names say that they do not belong together.

    Raises
    ------
    InputError
        Naming the person, session, run or task of both.
    """
    one, other = identity(first), identity(second)
    for key, word in IDENTITY.items():
        if key in one and key in other and plain(one[key]) != plain(other[key]):
            raise InputError(
                f"{first} is of {word} {key}-{one[key]} but {second} is of {key}-{other[key]}, and they are given for "
                "one another: check the files and their order, or rename one."
            )


def blanked(cells: Iterable[str], source: str, also: Sequence[str] = ()) -> list[str]:
    """Cells of a table or lines of a list, "" where they say that something is missing.

    Parameters
    ----------
    cells
        Text as read.
    source
        File or argument, for the log.
    also
        Further words for missing, in small letters.

    Returns
    -------
    list of str
        In Unicode's NFC, without spaces around. A word that might also be a name is taken as missing with a warning.
    """
    found, unsure = [], []
    for cell in cells:
        text = normal_name(cell.strip())
        word = text.lower()
        if word in LIKELY_MISSING and word not in also:
            unsure.append(text)
        found.append("" if word in (*MISSING, *LIKELY_MISSING, *also) else text)
    if unsure:
        logger.warning(
            "%s: %d cells say '%s', which is taken as missing: write n/a for that, and rename what is called so",
            source,
            len(unsure),
            "', '".join(dict.fromkeys(unsure)),
        )
    return found
