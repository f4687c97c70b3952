"""Pages that the build writes: each only where it changed, so that Sphinx reads again what is new and no more."""

from pathlib import Path


def write_page(path: Path, text: str) -> None:
    """Write a generated page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def remove_others(folder: Path, kept: set[Path]) -> None:
    """Remove pages of an earlier build that nothing stands behind any more."""
    for path in folder.glob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
