"""From encoders to maps, tables and figures."""

from braincorl.analysis.flatmap import plot_flatmap
from braincorl.analysis.maps import save_map, unmask
from braincorl.analysis.scores import score_encoder, summarize_rois
from braincorl.analysis.surface_plots import plot_surface
from braincorl.analysis.volume_plots import plot_glass_brain, plot_mosaic

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
