"""Cards of data sets and encoders as pages: each page includes its card, so there is one text."""

from pathlib import Path
from typing import Any

from tools.pages import remove_others, write_page

ROOT = Path(__file__).resolve().parent.parent.parent


def write_pages(app: Any) -> None:
    """Write a page per card, below `datasets/` and `encoders/` of the site."""
    site = Path(app.srcdir)
    datasets = {path.stem: path for path in sorted((ROOT / "datasets").glob("*.md")) if path.stem != "README"}
    encoders = {path.parent.name: path for path in sorted((ROOT / "encoders").glob("*/README.md"))}
    for room, cards in (("datasets", datasets), ("encoders", encoders)):
        pages = {site / room / f"{name}.md": include(path) for name, path in cards.items()}
        listed = "\n".join(cards)
        toctree = f"\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
        pages[site / room / "README.md"] = include(ROOT / room / "README.md") + toctree
        for path, text in pages.items():
            write_page(path, text)
        remove_others(site / room, set(pages))


def include(path: Path) -> str:
    """Page that includes a file of the repository."""
    return f"```{{include}} ../../{path.relative_to(ROOT)}\n```\n"
