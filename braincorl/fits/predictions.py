"""Predicted responses of a fitted person: in memory, or as a series of volumes written a few images at a time."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl import __version__
from braincorl.batching import at_a_time
from braincorl.encoders import LinearEncoder
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.fits.fitted import Fitted
from braincorl.fits.folder import write_description
from braincorl.fits.maps import LARGEST_SERIES, Outside, save_series
from braincorl.fits.seen_images import check_features_fit
from braincorl.storage.files import GENERATOR, Progress, ProgressCounter, write_json
from braincorl.storage.result_folders import staged_directory

logger = logging.getLogger(__name__)


KINDS = {
    "predicted": "Predicted responses",
    "predictedstd": "Standard deviation of a measured response around its prediction",
}


def predict(
    fit: Fitted, features: FeatureTable, images: Iterable[str] | None = None, *, return_std: bool = False
) -> Any:
    """Predict responses to images.

    Parameters
    ----------
    features
        Of the fit's feature space.
    images
        Which, by name; by default all of the table's, in its order.
    return_std
        Also return the standard deviation of a measured response around its prediction.

    Returns
    -------
    y : ndarray of shape (n_images, n_voxels)
        In the units of the fitted responses.
    std : ndarray of the same shape
        Only with `return_std`.

    Raises
    ------
    InputError
        If the features are of another space, or differ from the fit's under the same names; if an image has none,
        or the encoder has no standard deviation.
    """
    return fit.encoder.predict(_features_of(fit, features, images)[1], return_std=return_std)


def save_predictions(
    fit: Fitted,
    path: str | Path,
    features: FeatureTable,
    images: Iterable[str] | None = None,
    *,
    std: bool = False,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    outside: Outside = "nan",
    progress: Progress | None = None,
) -> int:
    """Write predicted responses as a series of volumes, a few images at a time.

    Parameters and errors are those of `predict` and `save`; `progress` is called with (volumes done, volumes).

    Returns
    -------
    int
        Number of images.
    """
    names, chosen = _features_of(fit, features, images)
    space, zscore = fit.space, fit.config["zscore"]
    if space.mask is not None and len(names) > LARGEST_SERIES:
        raise InputError(
            f"{len(names)} images exceed the {LARGEST_SERIES} volumes of a NIfTI file: pass some as --images."
        )
    if std:
        # An encoder without one says so before anything is written.
        unknown = np.isnan(fit.encoder.predict(chosen[:1], return_std=True)[1])
        if unknown.any():
            logger.warning(
                "%d of %d voxels were constant in the context: their deviation is unknown, NaN in the maps",
                int(unknown.sum()),
                unknown.size,
            )
    step = at_a_time(8 * (space.included if space.mask is None else space.mask).size)
    with staged_directory(path, overwrite=overwrite, kind="prediction") as folder:
        counter = ProgressCounter(len(names) * (1 + std), progress)
        for kind in list(KINDS)[: 1 + std]:
            stem = f"{fit.config['prefix']}_stat-effect_desc-{kind}"
            chunks = _chunks(fit.encoder, chosen, kind == "predictedstd", step, counter)
            save_series(chunks, len(names), space, folder / f"{stem}_statmap.nii.gz", _sidecar(kind, zscore), outside)
            rows = "".join(f"{volume}\t{name}\n" for volume, name in enumerate(names))
            (folder / f"{stem}_trials.tsv").write_text("volume\timage\n" + rows, encoding="utf-8")
        facts = {**(notes or {}), "features_provenance": dict(features.provenance)}
        facts |= {"n_images": len(names), "std": std, "zscore": zscore}
        write_json(folder / "config.json", {"braincorl": __version__, **fit.identity(), **facts})
        write_description(folder, "Predicted responses")
    return len(names)


def _features_of(
    fit: Fitted, features: FeatureTable, images: Iterable[str] | None
) -> tuple[npt.NDArray[np.str_], npt.NDArray[Any]]:
    """Names (n_images,) and features (n_images, n_features) of images to predict, once they prove to be the fit's."""
    check_features_fit(fit, features)
    names = features.image_ids if images is None else np.asarray(list(images))
    return names, features.features[features.rows(names)]


def _chunks(
    encoder: LinearEncoder, features: npt.NDArray[Any], std: bool, step: int, counter: ProgressCounter
) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, len(features), step):
        chunk = features[start : start + step]
        yield encoder.predict(chunk, return_std=True)[1] if std else encoder.predict(chunk)
        counter.add(len(chunk))


def _sidecar(kind: str, zscore: str) -> dict[str, str]:
    unit = "standard deviations of a session's trials" if zscore == "session" else "unit of the fitted betas"
    return {
        "Description": f"{KINDS[kind]}, one volume per row of the trials table",
        "Units": unit,
        "Software": f"{GENERATOR} {__version__}",
    }
