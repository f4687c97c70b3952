"""The page on citing, from `CITATION.cff`."""

from pathlib import Path
from typing import Any

import yaml

from tools.pages import write_page

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = "reference/cite.md"


def write_pages(app: Any) -> None:
    """Write the page."""
    write_page(Path(app.srcdir, PAGE), page(yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))))


def page(citation: dict[str, Any]) -> str:
    """Markdown on what to cite: the software, then the work that it builds on."""
    text = f"# How to cite\n\n{citation['message']}\n\n## The software\n\n{sentence(citation)}\n\n"
    text += f"```bibtex\n{bibtex('braincorl', citation)}\n```\n\n## The work that it builds on\n"
    for number, reference in enumerate(citation["references"], start=1):
        text += f"\n{sentence(reference)}\n\n```bibtex\n{bibtex(f'method{number}', reference)}\n```\n"
    return text + (
        "\n## And what you used of others\n\n"
        "The data set (each [card](../datasets/README.md) says what to cite), the backbone of your features, and where "
        "you used them GLMsingle, nilearn and scikit-learn. `braincorl report FIT_DIR --methods` writes a methods "
        "paragraph with the numbers of your own fit, and names them.\n"
    )


def authors(entry: dict[str, Any]) -> str:
    """Names in one line."""
    return " and ".join(a.get("name") or f"{a['given-names']} {a['family-names']}" for a in entry["authors"])


def sentence(entry: dict[str, Any]) -> str:
    """One line of a list of references."""
    what = f"version {entry['version']}, computer software, {entry['license']}" if "version" in entry else entry["year"]
    link = f" <{entry['url']}>" if "url" in entry else ""
    return f"{authors(entry).removesuffix('.')}. *{entry['title']}* ({what}).{link}"


def bibtex(key: str, entry: dict[str, Any]) -> str:
    """Entry for BibTeX; braces keep names of organisations and capitals as they are."""
    fields = {
        "title": f"{{{entry['title']}}}",
        "author": "{" + authors(entry).replace(" et al.", "} and {others") + "}",
    }
    fields |= {name: str(entry[name]) for name in ("year", "version", "url", "doi") if name in entry}
    kind = "software" if entry["type"] == "software" else "misc"
    lines = "".join(f",\n  {name} = {{{value}}}" for name, value in fields.items())
    return f"@{kind}{{{key}{lines}\n}}"
