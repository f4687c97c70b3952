"""From encoders to maps, tables and figures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braincorl.analysis.benchmarking import Benchmark, benchmark_person, benchmark_simulation
    from braincorl.analysis.components import (
        cluster_voxels,
        compare_encoders,
        embed_voxels,
        encoder_components,
        tuning_correlation,
    )
    from braincorl.analysis.context.influence import context_influence
    from braincorl.analysis.context.looked_at import context_attention, context_by_roi
    from braincorl.analysis.demonstration import Demonstration, demonstrate
    from braincorl.analysis.fit_comparison import FitComparison, compare_fits
    from braincorl.analysis.image_identification import ImagesTold, identify_images
    from braincorl.analysis.maps.flatmap import plot_flatmap
    from braincorl.analysis.maps.peaks import find_clusters, region_peaks
    from braincorl.analysis.maps.surface_plots import plot_surface
    from braincorl.analysis.maps.viewer import view_map
    from braincorl.analysis.maps.volume_plots import plot_glass_brain, plot_mosaic
    from braincorl.analysis.scaling import scaling_curve
    from braincorl.analysis.words.answers import Answers, ask_fit
    from braincorl.analysis.words.query_selection import (
        localizer_accuracy,
        preferred_images,
        preferred_texts,
        selection_by_roi,
        top_voxels,
    )
    from braincorl.analysis.words.questions_in_words import Query, choose_space, own_pool, query_images, query_words
    from braincorl.analysis.words.selectivity import TextSelectivity, text_selectivity
    from braincorl.fits.maps import save_map, unmask
    from braincorl.fits.scores import score_encoder, summarize_rois
    from braincorl.questions.comparison import compare_predictions
    from braincorl.questions.feature_posterior import feature_posterior
    from braincorl.questions.group_means import over_people
    from braincorl.questions.identification import context_noise, identify, repeat_noise
    from braincorl.questions.partition import partition_variance
    from braincorl.questions.permutation import permutation_test

# Imported when first used: a verb that needs one of them should not wait for all.
_MODULES = {
    "analysis.benchmarking": "Benchmark benchmark_person benchmark_simulation",
    "analysis.components": "cluster_voxels compare_encoders embed_voxels encoder_components tuning_correlation",
    "analysis.context.influence": "context_influence",
    "analysis.context.looked_at": "context_attention context_by_roi",
    "analysis.demonstration": "demonstrate Demonstration",
    "analysis.fit_comparison": "compare_fits FitComparison",
    "analysis.image_identification": "identify_images ImagesTold",
    "analysis.maps.flatmap": "plot_flatmap",
    "analysis.maps.peaks": "find_clusters region_peaks",
    "analysis.maps.surface_plots": "plot_surface",
    "analysis.maps.viewer": "view_map",
    "analysis.maps.volume_plots": "plot_glass_brain plot_mosaic",
    "analysis.scaling": "scaling_curve",
    "analysis.words.answers": "Answers ask_fit",
    "analysis.words.query_selection": "localizer_accuracy preferred_images preferred_texts selection_by_roi top_voxels",
    "analysis.words.questions_in_words": "choose_space own_pool Query query_images query_words",
    "analysis.words.selectivity": "text_selectivity TextSelectivity",
    "fits.maps": "save_map unmask",
    "fits.scores": "score_encoder summarize_rois",
    "questions.comparison": "compare_predictions",
    "questions.feature_posterior": "feature_posterior",
    "questions.group_means": "over_people",
    "questions.identification": "context_noise identify repeat_noise",
    "questions.partition": "partition_variance",
    "questions.permutation": "permutation_test",
}
_HOMES = {name: f"braincorl.{module}" for module, names in _MODULES.items() for name in names.split()}

__all__ = [
    "Answers",
    "Benchmark",
    "Demonstration",
    "FitComparison",
    "ImagesTold",
    "Query",
    "TextSelectivity",
    "ask_fit",
    "benchmark_person",
    "benchmark_simulation",
    "choose_space",
    "cluster_voxels",
    "compare_encoders",
    "compare_fits",
    "compare_predictions",
    "context_attention",
    "context_by_roi",
    "context_influence",
    "context_noise",
    "demonstrate",
    "embed_voxels",
    "encoder_components",
    "feature_posterior",
    "find_clusters",
    "identify",
    "identify_images",
    "localizer_accuracy",
    "over_people",
    "own_pool",
    "partition_variance",
    "permutation_test",
    "plot_flatmap",
    "plot_glass_brain",
    "plot_mosaic",
    "plot_surface",
    "preferred_images",
    "preferred_texts",
    "query_images",
    "query_words",
    "region_peaks",
    "repeat_noise",
    "save_map",
    "scaling_curve",
    "score_encoder",
    "selection_by_roi",
    "summarize_rois",
    "text_selectivity",
    "top_voxels",
    "tuning_correlation",
    "unmask",
    "view_map",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'braincorl.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
