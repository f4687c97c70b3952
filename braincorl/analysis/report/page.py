"""A page that opens anywhere: one HTML file, nothing loaded from outside, no script, readable on a phone.

What it says and how it looks are the files in `templates/`: `page.html` around everything, a file for each section,
`parts.html` for what several sections are made of, `style.css`. Jinja escapes whatever text comes in, so a name may be
anything; a value that a template asks for and does not get is an error.
"""

import base64
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from braincorl import __version__
from braincorl.analysis.figures import png_bytes, save_figure
from braincorl.errors import InputError
from braincorl.storage.files import GENERATOR, atomic_file, check_new_file
from braincorl.storage.result_folders import staged_directory

# The page's own mark, by which a report is known as ours before it is replaced.
GENERATOR_TAG = f'<meta name="generator" content="{GENERATOR}'
SIMULATION = "SIMULATION: these responses were drawn from known encoders; no brain was measured."


@dataclass(frozen=True)
class Section:
    """One section of a page.

    Attributes
    ----------
    heading
        Its title, also in the list of contents.
    template
        File in `templates/` that says what is in it.
    data
        What that file shows, there by the name `data`; None leaves the section out.
    """

    heading: str
    template: str
    data: Mapping[str, Any] | None

    @property
    def anchor(self) -> str:
        """What a link to it ends in."""
        return _slug(self.heading).lower()


@dataclass(frozen=True)
class Place:
    """Where a figure or table is on a page.

    Attributes
    ----------
    number
        Among those of its kind, from 1.
    anchor
        What a link to it ends in.
    file
        Name of a file that holds it, without the ending.
    """

    number: int
    anchor: str
    file: str


class Listing:
    """Numbers the figures and tables of one page in their order, and names them after their sections.

    Attributes
    ----------
    folder
        Where links to figures lead, as a page says it; empty for none.
    shown
        Name of a file, without the ending -> the figure or table.
    """

    def __init__(self, title: str, folder: str = "") -> None:
        self.folder = folder
        self.shown: dict[str, Figure | pd.DataFrame] = {}
        self._title = _slug(title)
        self._counts: Counter[tuple[str, ...]] = Counter()

    def add(self, shown: Figure | pd.DataFrame, section: Section) -> Place:
        """Give a place to the next figure or table."""
        kind = "figure" if isinstance(shown, Figure) else "table"
        self._counts.update([(kind,), (kind, section.anchor)])
        anchor = f"{section.anchor}-{kind}-{self._counts[kind, section.anchor]}"
        place = Place(self._counts[kind,], anchor, f"{self._title}_{anchor}")
        self.shown[place.file] = shown
        return place

    def save(self, folder: Path) -> None:
        """Write every figure (PNG) and table (TSV) into a folder."""
        for name, shown in self.shown.items():
            if isinstance(shown, Figure):
                save_figure(shown, folder / f"{name}.png")
            else:
                shown.to_csv(folder / f"{name}.tsv", sep="\t", index=False, na_rep="n/a")


def render_page(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    notes: Sequence[str] = (),
    tiles: Mapping[str, object] | None = None,
    *,
    listing: Listing | None = None,
) -> str:
    """Make a page.

    Parameters
    ----------
    title, subtitle
        Text at the top.
    sections
        In their order; those without data are left out.
    notes
        What a reader must know, in a box of its own.
    tiles
        Named numbers in large letters.
    listing
        What the page shows is added to it.

    Returns
    -------
    str
        HTML.
    """
    return _environment().get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        notes=notes,
        tiles=tiles,
        sections=[section for section in sections if section.data is not None],
        generator=f"{GENERATOR} {__version__}",
        listing=listing or Listing(title),
    )  # fmt: skip


def write_page(
    path: str | Path, title: str, *args: Any, figures: Path | None = None, overwrite: bool = False, **options: Any
) -> None:
    """Write the page that `render_page` makes of the other arguments, whole or not at all.

    Parameters
    ----------
    path
        Destination.
    title
        Text at the top.
    *args, **options
        The rest of what `render_page` takes.
    figures
        Folder to write every figure and table into besides, to which the page then links.
    overwrite
        Replace an earlier such folder.

    Raises
    ------
    OutputError
        If a file cannot be written, or the folder is taken.
    """
    folder = "" if figures is None else quote(Path(os.path.relpath(figures, Path(path).parent)).as_posix()) + "/"
    listing = Listing(title, folder)
    page = render_page(title, *args, listing=listing, **options)
    if figures is not None:
        with staged_directory(figures, overwrite=overwrite, kind="figures") as staged:
            listing.save(staged)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def check_page(path: Path, *, overwrite: bool) -> None:
    """Refuse a destination that is no page's, or must not be replaced, before any work is done.

    Raises
    ------
    InputError
        If its name is of another kind, or somebody else's file is there.
    OutputError
        If it exists and `overwrite` does not say that it may be replaced.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {path} must end in .html.")
    check_new_file(path, overwrite)
    if path.exists():
        with path.open("rb") as file:
            own = GENERATOR_TAG.encode() in file.read(2000)
        if not own:
            raise InputError(f"{path} was not written by braincorl: choose another --output.")


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"png": _png, "jpeg": _jpeg, "number": plain, "cell": _cell, "tsv": _tsv}
    return found


def plain(value: Any) -> str:
    """Format a number or text: three digits, thin spaces in thousands, n/a for nothing."""
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return "n/a" if value != value else f"{value:.3f}"
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else str(value)


def _cell(value: Any) -> str:
    """Format a table's value; counts as they are, so that they can be copied."""
    return str(value) if isinstance(value, int) else plain(value)


def _png(figure: Figure) -> str:
    return _data_uri("png", png_bytes(figure))


def _jpeg(content: bytes) -> str:
    return _data_uri("jpeg", content)


def _tsv(frame: pd.DataFrame) -> str:
    """Give a table as a file to download, with every digit."""
    text = frame.to_csv(sep="\t", index=False, na_rep="n/a")
    return f"data:text/tab-separated-values;charset=utf-8;base64,{base64.b64encode(text.encode()).decode('ascii')}"


def _slug(text: str) -> str:
    """Letters, digits, `_` and `-` of a text, for names of places and files."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "page"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
