"""Names that users import, room by room, from each room's `__all__`, or else from what its module defines."""

import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tools.pages import write_page

PAGE = "reference/api.md"

# Rooms in the order of a first use. A name is described once: in the first room that has it.
ROOMS = {
    "braincorl": "What a first script imports.",
    "braincorl.datasets": "People: their responses, regions, spaces and splits.",
    "braincorl.features": "Images and words to features, and their files.",
    "braincorl.encoders": "Estimators, from features to responses.",
    "braincorl.priors": "The memory of earlier people's voxels.",
    "braincorl.fits": "One person's fit, in memory and on disk.",
    "braincorl.metrics": "Scores per voxel, and noise ceilings.",
    "braincorl.analysis": "Maps, words, attention, questions, figures.",
    "braincorl.models": "Networks, in torch.",
    "braincorl.checkpoint": "Files of networks.",
    "braincorl.errors": "What a mistake raises.",
}


def write_pages(app: Any) -> None:
    """Write the page of names; autosummary writes a page for each of them."""
    text, seen = "# Python\n\nImages are on axis 0 and voxels on axis 1, everywhere.\n", set[int]()
    for room, what in ROOMS.items():
        names = [name for name, thing in public(import_module(room)) if id(thing) not in seen]
        seen |= {id(thing) for _, thing in public(import_module(room))}
        if names:
            listed = "\n".join(f"   {room}.{name}" for name in names)
            text += f"\n## {room}\n\n{what}\n\n```{{eval-rst}}\n.. autosummary::\n   :toctree: names\n\n{listed}\n```\n"
    write_page(Path(app.srcdir, PAGE), text)


def public(module: ModuleType) -> list[tuple[str, Any]]:
    """Functions and classes of a room, by name."""
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    things = [(name, getattr(module, name)) for name in sorted(names, key=str.lower)]
    return [(name, thing) for name, thing in things if inspect.isclass(thing) or inspect.isfunction(thing)]
