"""What a fit on disk was made from, read again from where it was: what a later question leaves out."""

from collections.abc import Mapping
from pathlib import Path

from braincorl.datasets import SubjectData, load_subject
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.features.store.feature_files import load_spaces
from braincorl.fits.fit import Fit
from braincorl.fits.folder import hash_responses
from braincorl.storage.files import Progress


def recorded_features(fit: Fit, argument: str = "features", image_ids: Path | None = None) -> FeatureTable:
    """Read the features that a fit was made from.

    Parameters
    ----------
    fit
        On disk.
    argument
        What to pass if they are gone.
    image_ids
        Names of the images of an .npy file.

    Returns
    -------
    FeatureTable

    Raises
    ------
    InputError
        If they are not where they were, asking for `argument`.
    """
    stated = fit.config.get("features")
    paths = _recorded_files(fit, "features", argument)
    files = dict(zip(stated, paths, strict=True)) if isinstance(stated, Mapping) else paths[0]
    return load_spaces(files, image_ids)


def recorded_responses(
    fit: Fit,
    features: FeatureTable,
    argument: str = "betas",
    *,
    as_fitted: bool = True,
    progress: Progress | None = None,
) -> SubjectData:
    """Read the responses that a fit was made from.

    Parameters
    ----------
    fit
        On disk.
    features
        Of the images to read.
    argument
        What to pass if they are gone.
    as_fitted
        Whether the features are those of the fit: the responses must then be, too.
    progress
        Called with (trials read, trials in all).

    Returns
    -------
    SubjectData

    Raises
    ------
    InputError
        If they are not where they were, or are others now, asking for `argument`.
    """
    betas = _recorded_files(fit, "betas", argument)
    subject = load_subject(
        betas,
        _recorded_files(fit, "trials", argument),
        fit.grid,
        zscore=fit.config["zscore"],
        images=features.image_ids.tolist(),
        progress=progress,
    )
    stated = fit.config.get("responses_sha256")
    if as_fitted and stated is not None and stated != hash_responses(subject.responses):
        raise InputError(
            f"{betas[0]} and its trials are not what the fit in {fit.path} was made from: they changed, or other files "
            f"bear these names here; pass {argument}."
        )
    return subject


def _recorded_files(fit: Fit, key: str, argument: str) -> list[Path]:
    stated = fit.config.get(key)
    stated = list(stated.values()) if isinstance(stated, Mapping) else stated
    paths = [Path(text) for text in ([stated] if isinstance(stated, str) else stated or [])]
    missing = [str(path) for path in paths if not path.exists()]
    if missing or (not paths and key != "trials"):
        raise InputError(
            f"the fit in {fit.path} was made from {missing[0] if missing else 'unknown ' + key}, which is not there "
            f"(any more): pass {argument}."
        )
    return paths
