"""Links inside the built site: every page, picture and place on a page that is pointed at must be there."""

from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.util import logging

LOG = logging.getLogger(__name__)


class Page(HTMLParser):
    """What a page points at, and the places on it that can be pointed at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what one tag points at."""
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if (tag in ("img", "script", "source", "iframe") and "src" in values) or (
            tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload")
        ):
            self.loaded.append(values.get("src") or values.get("href", ""))


def check_site(app: Any, exception: Exception | None) -> None:
    """Fail the build where a link leads nowhere, or a page loads anything from outside."""
    if exception is not None or app.builder.format != "html":
        return
    for fault in find_faults(Path(app.outdir), app.env.all_docs):
        LOG.error("links: %s", fault)
        app.statuscode = 1


def find_faults(folder: Path, names: Iterable[str]) -> list[str]:
    """Find broken links of the named pages of a folder, one line each."""
    folder = folder.resolve()
    pages = {path: Page(path) for path in sorted(folder / f"{name}.html" for name in names)}
    faults = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    faults.append(f"{name} loads {link}, which is not part of the site")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                faults.append(f"{name} points at {link}, which is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                faults.append(f"{name} points at {link}, but there is no such place on that page")
    return faults
