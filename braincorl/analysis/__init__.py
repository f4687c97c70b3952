"""From encoders to maps, tables and figures."""

from braincorl.analysis.maps import save_map, unmask
from braincorl.analysis.scores import score_encoder, summarize_rois

__all__ = ["save_map", "score_encoder", "summarize_rois", "unmask"]
