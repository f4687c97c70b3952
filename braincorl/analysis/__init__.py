"""From encoders to maps, tables and figures."""

from importlib import import_module
from typing import Any

from braincorl.analysis.attention import context_attention, context_by_roi
from braincorl.analysis.components import (
    cluster_voxels,
    compare_encoders,
    embed_voxels,
    encoder_components,
    tuning_correlation,
)
from braincorl.analysis.influence import context_influence
from braincorl.analysis.maps import save_map, unmask
from braincorl.analysis.scaling import scaling_curve
from braincorl.analysis.scores import score_encoder, summarize_rois
from braincorl.analysis.selection import (
    localizer_accuracy,
    preferred_images,
    preferred_texts,
    selection_by_roi,
    top_voxels,
)
from braincorl.analysis.selectivity import TextSelectivity, text_selectivity

# Imported when first used: matplotlib takes its time, and a fit needs none of it.
_HOMES = {
    "plot_flatmap": "braincorl.analysis.flatmap",
    "plot_glass_brain": "braincorl.analysis.volume_plots",
    "plot_mosaic": "braincorl.analysis.volume_plots",
    "plot_surface": "braincorl.analysis.surface_plots",
}

__all__ = [
    "TextSelectivity",
    "cluster_voxels",
    "compare_encoders",
    "context_attention",
    "context_by_roi",
    "context_influence",
    "embed_voxels",
    "encoder_components",
    "localizer_accuracy",
    "plot_flatmap",
    "plot_glass_brain",
    "plot_mosaic",
    "plot_surface",
    "preferred_images",
    "preferred_texts",
    "save_map",
    "scaling_curve",
    "score_encoder",
    "selection_by_roi",
    "summarize_rois",
    "text_selectivity",
    "top_voxels",
    "tuning_correlation",
    "unmask",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'braincorl.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
