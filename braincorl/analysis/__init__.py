"""From encoders to maps, tables and figures."""

from braincorl.analysis.attention import context_attention, context_by_roi, context_influence
from braincorl.analysis.components import cluster_voxels, compare_encoders, encoder_components, tuning_correlation
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

__all__ = [
    "TextSelectivity",
    "cluster_voxels",
    "compare_encoders",
    "context_attention",
    "context_by_roi",
    "context_influence",
    "encoder_components",
    "localizer_accuracy",
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
