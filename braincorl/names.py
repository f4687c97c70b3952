"""Names of images, texts and regions: one form of each, and none that breaks a table.

The same name can be spelled in two ways (é as one character, or as e with an accent, as macOS writes file names); here
every name is read in the first, Unicode's NFC. Tables are plain text, one row a line, so a name that holds a line break
or a tab would end its row; and a cell that begins with `=` or `@`, or with a sign and is no number, is a formula to a
spreadsheet, which would run it. Such names are refused where they come in, so that no table needs quotes.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from braincorl.errors import InputError

# Name of the native transformer among checkpoints; it has no file, since nothing in it is trained.
NATIVE = "default"

# Control characters, and the line and paragraph separators of Unicode.
_BREAKS_ROWS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FORMULA = re.compile(r"[=@]|[+-](?!\d*\.?\d*(e[+-]?\d+)?$)", re.IGNORECASE)


def normal_name(name: str) -> str:
    """Spell a name as Unicode's NFC."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def check_names(names: Iterable[str], what: str) -> None:
    """Refuse names that would break a table of results.

    Parameters
    ----------
    names
        Of images, texts, regions or the like.
    what
        What they are, for the message.

    Raises
    ------
    InputError
        Showing the first such name.
    """
    for name in names:
        if _BREAKS_ROWS.search(name):
            raise InputError(f"{what} {name!r} holds a control character or a line break: rename it.")
        if _FORMULA.match(name):
            raise InputError(f"{what} {name!r} begins with '{name[0]}', a formula to spreadsheets: rename it.")
        if not name.strip():
            raise InputError(f"{what} {name!r} is empty: name it.")


def natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key by which img2 comes before img10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def file_labels(names: Sequence[str], instead: str) -> list[str]:
    """Give labels for file names, of ASCII letters and digits alone, one for each name and no two alike in any case.

    Parameters
    ----------
    names
        What is to be told apart.
    instead
        Label of a name without letters and digits.
    """
    bare = [re.sub(r"[^A-Za-z0-9]", "", name) or instead for name in names]
    labels: list[str] = []
    for number, label in enumerate(bare, start=1):
        others = {other.lower() for other in bare[: number - 1] + bare[number:]} | {other.lower() for other in labels}
        found, suffix = label, str(number)
        while found.lower() in others:
            found, suffix = label + suffix, f"{suffix}x{number}"
        labels.append(found)
    return labels
