"""A page that opens anywhere: text, tables and figures in one HTML file, nothing loaded from outside."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from braincorl.files import atomic_file

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
.note { background: #fff6d6; padding: .6rem 1rem; border-radius: .3rem; }
code { background: #f3f3f3; padding: .1rem .3rem; }
"""


def write_report(
    path: str | Path, title: str, note: str, table: pd.DataFrame, figures: Sequence[Path], lines: Sequence[str]
) -> None:
    """Write one self-contained HTML file.

    Parameters
    ----------
    path
        Destination, ending in `.html`.
    title
        Heading.
    note
        What a reader must know first, shown on a coloured ground.
    table
        Shown with its columns as they are.
    figures
        PNG files, embedded.
    lines
        Paragraphs below the figures.
    """
    images = "".join(
        f'<img alt="{html.escape(figure.stem)}" src="data:image/png;base64,{_encode(figure)}">' for figure in figures
    )
    rows = table.to_html(index=False, border=0, escape=True, na_rep="n/a")
    text = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<h1>{html.escape(title)}</h1><p class="note">{html.escape(note)}</p>{rows}{images}{text}</body></html>\n'
    )
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _encode(figure: Path) -> str:
    return base64.b64encode(figure.read_bytes()).decode("ascii")
