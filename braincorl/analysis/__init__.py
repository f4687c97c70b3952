"""From encoders to maps, tables and figures."""

from importlib import import_module
from typing import Any

from braincorl.analysis.maps import save_map, unmask
from braincorl.analysis.scores import score_encoder, summarize_rois

# Imported when first used: matplotlib takes its time, and a fit needs none of it.
_HOMES = {
    "plot_flatmap": "braincorl.analysis.flatmap",
    "plot_glass_brain": "braincorl.analysis.volume_plots",
    "plot_mosaic": "braincorl.analysis.volume_plots",
    "plot_surface": "braincorl.analysis.surface_plots",
}

__all__ = [
    "plot_flatmap",
    "plot_glass_brain",
    "plot_mosaic",
    "plot_surface",
    "save_map",
    "score_encoder",
    "summarize_rois",
    "unmask",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'braincorl.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
