"""Tables of the page on file formats, from the names that the code writes files by."""

from pathlib import Path
from typing import Any

from braincorl.fits.folder import CONTENTS, MAPS, SPACE_MAPS
from tools.command_line import escape
from tools.pages import write_page

FOLDER = "reference/tables"


def write_pages(app: Any) -> None:
    """Write the tables that `reference/file_formats.md` includes."""
    spaces = {name: (what, "1") for name, what in SPACE_MAPS.values()}
    maps = "".join(
        f"| `{name}` | {escape(what)} | {escape(unit)} |\n" for name, (what, unit) in (MAPS | spaces).items()
    )
    files = "".join(f"| `{name}` | {what} |\n" for name, what in CONTENTS.items())
    write_page(Path(app.srcdir, FOLDER, "maps.md"), f"| `stat-` | what it is | unit |\n|---|---|---|\n{maps}")
    write_page(Path(app.srcdir, FOLDER, "contents.md"), f"| file | what it is |\n|---|---|\n{files}")
