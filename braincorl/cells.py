"""What notebooks show in place of a `repr`: one small table, its text escaped.

A name of a person, a region or a path comes out of a file that somebody else may have written, so nothing of it is
taken for markup. Colours are the notebook's own, so that tables read in light and dark.
"""

import html
from collections.abc import Mapping
from typing import Any

LONGEST = 300  # letters of one value: a cell shows what a thing is, not all of it


def facts_html(title: str, facts: Mapping[str, Any], note: str = "") -> str:
    """Give a table of facts.

    Parameters
    ----------
    title
        What the thing is.
    facts
        Name -> value, in this order; any text.
    note
        A line below it.

    Returns
    -------
    str
        HTML without scripts, links or pictures.
    """
    left = "text-align: left"
    rows = "".join(
        f'<tr><th scope="row" style="{left}">{_text(name)}</th><td style="{left}">{_text(value)}</td></tr>'
        for name, value in facts.items()
    )
    below = f"<div>{_text(note)}</div>" if note else ""
    return f"<div><table><caption>{_text(title)}</caption><tbody>{rows}</tbody></table>{below}</div>"


def _text(value: Any) -> str:
    text = str(value)
    return html.escape(text if len(text) <= LONGEST else text[:LONGEST] + " …")
