"""A page that opens anywhere: one HTML file, nothing loaded from outside, no script, readable on a phone.

Every function returns HTML; whatever text comes in is escaped here and nowhere else, so user text is always safe.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from braincorl import __version__
from braincorl.analysis.figures import png_bytes
from braincorl.files import GENERATOR, atomic_file

# The page's own mark, by which a report is known as ours before it is replaced.
GENERATOR_TAG = f'<meta name="generator" content="{GENERATOR}'

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1d2327; --soft: #5c6670; --line: #dde2e6; --card: #f5f7f8;
  --note: #fff4d1; --link: #0b63b0; }
@media (prefers-color-scheme: dark) { :root { --ground: #15191c; --text: #e6eaed; --soft: #9aa5ae; --line: #333b41;
  --card: #1f252a; --note: #453a12; --link: #7db8f0; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; max-width: 62rem; margin: 0 auto;
  padding: 1rem 1rem 4rem; color: var(--text); background: var(--ground); overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1rem 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .8rem 0; }
a { color: var(--link); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.tiles div { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; }
.tiles dt { color: var(--soft); font-size: .8rem; }
.tiles dd { margin: 0; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.notes { background: var(--note); border-radius: .5rem; padding: .7rem 1rem .7rem 2rem; margin: 1rem 0; }
.note { background: var(--note); border-radius: .5rem; padding: .7rem 1rem; margin: 1rem 0; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.facts td { white-space: normal; text-align: left; vertical-align: top; font-family: ui-monospace, monospace;
  font-size: .8rem; }
.facts th { text-align: left; vertical-align: top; font-weight: 500; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: .4rem; }
figcaption { margin-top: .3rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr)); gap: .6rem; padding: 0;
  margin: .4rem 0; list-style: none; }
.pictures li { font-size: .72rem; line-height: 1.3; color: var(--soft); }
.pictures img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: .3rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .85rem; background: var(--card); border-radius: .3rem; }
code { padding: .1rem .3rem; }
pre { padding: .7rem; overflow-x: auto; }
@media (max-width: 40rem) { h1 { font-size: 1.4rem; } figure img { width: 100%; } }
@media print { nav { display: none; } }
"""


def escape(text: object) -> str:
    """Make any text safe inside HTML, attributes included."""
    return html.escape(str(text), quote=True)


def paragraph(text: str, kind: str = "") -> str:
    """Make a paragraph, `kind` being "soft", "note" or nothing."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def notes(lines: Sequence[str]) -> str:
    """Make a coloured list of what a reader must know; nothing for no lines."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="notes">{items}</ul>' if lines else ""


def tiles(facts: Mapping[str, object]) -> str:
    """Make a row of named numbers."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="tiles">{items}</dl>'


def data_table(table: pd.DataFrame) -> str:
    """Make a table with its columns as they are, which scrolls by itself where the screen is narrow."""
    body = table.to_html(index=False, border=0, escape=True, na_rep="n/a", float_format=lambda value: f"{value:.3f}")
    return f'<div class="scroll">{body}</div>'


def facts_table(facts: Mapping[str, object]) -> str:
    """Make a table of names and values, which may be long."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in facts.items()
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def picture(figure: Figure, caption: str) -> str:
    """Embed a figure as PNG; its caption is also what a screen reader says."""
    image = image_tag(png_bytes(figure), "png", caption)
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def image_tag(content: bytes, kind: str, text: str) -> str:
    """Embed an image file's bytes; `text` stands for it where it cannot be seen."""
    return f'<img alt="{escape(text)}" src="data:image/{kind};base64,{base64.b64encode(content).decode("ascii")}">'


def picture_list(items: Iterable[tuple[bytes | None, str]]) -> str:
    """Make a grid of JPEG thumbnails with a line below each; the line alone where there is none."""
    entries = "".join(
        f"<li>{'' if content is None else image_tag(content, 'jpeg', text)}{escape(text)}</li>"
        for content, text in items
    )
    return f'<ul class="pictures">{entries}</ul>'


def details(summary: str, text: str) -> str:
    """Make a text that is shown when its summary is opened."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def write_page(path: str | Path, title: str, subtitle: str, intro: str, sections: Mapping[str, str]) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    path
        Destination, ending in `.html`.
    title, subtitle
        Text at the top.
    intro
        HTML below it.
    sections
        Heading -> HTML; empty sections are left out.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    shown = {heading: content for heading, content in sections.items() if content}
    links = "".join(f'<a href="#s{number}">{escape(heading)}</a>' for number, heading in enumerate(shown))
    body = "".join(
        f'<section id="s{number}"><h2>{escape(heading)}</h2>{content}</section>'
        for number, (heading, content) in enumerate(shown.items())
    )
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{GENERATOR_TAG} {__version__}">'
        f"<style>{STYLE}</style></head><body><header><h1>{escape(title)}</h1>{paragraph(subtitle, 'soft')}</header>"
        f"{intro}<nav>{links}</nav><main>{body}</main></body></html>\n"
    )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def is_own_page(path: Path) -> bool:
    """Tell whether a file is a page that `write_page` wrote."""
    with path.open("rb") as file:
        return GENERATOR_TAG.encode() in file.read(2000)


def plain(value: Any) -> str:
    """Format a number or text: three digits, thin spaces in thousands, n/a for nothing."""
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return "n/a" if value != value else f"{value:.3f}"
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else str(value)
