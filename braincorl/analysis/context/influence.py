"""Which context images an encoder was made from: influence, which is defined for every encoder.

Leave image i out, fit again, and see how far predictions move:

    influence_vi = √ mean over pool images x of (f_v(x) - f_v^(-i)(x))²        in response units.

Shapes: X (n_images, n_features), y (n_images, n_voxels).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from braincorl.analysis.context.looked_at import Array, check_context
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.storage.files import Progress, ProgressCounter
from braincorl.validation import FloatArray


def context_influence(
    encoder: LinearEncoder,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    X_pool: npt.ArrayLike | None = None,
    *,
    fit_arguments: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Array:
    """Leave each context image out in turn, and measure how far the encoder's predictions move.

    Parameters
    ----------
    encoder
        Any encoder; it is cloned, not changed, and fitted n_images + 1 times.
    X
        Features of the context (n_images, n_features), at least three images.
    y
        Responses (n_images, n_voxels).
    X_pool
        Features of the images whose predictions are watched (n_pool, n_features); a few hundred are enough. By default
        the context. Encoders that learn the feature space's scale from a pool learn it from these, every time.
    fit_arguments
        Further arguments of `fit`, such as {"rois": labels}.
    progress
        Called with (fits done, fits).

    Returns
    -------
    ndarray of shape (n_voxels, n_images)
        Root mean square change of the predicted responses, in the units of `y`.

    Raises
    ------
    InputError
        If shapes do not match or there are fewer than three images.
    """
    features, responses = check_context(X, y)
    if len(features) < 3:
        raise InputError(f"X has {len(features)} images: leaving one out needs at least 3.")
    watched = features if X_pool is None else np.asarray(X_pool)
    arguments = dict(fit_arguments or {})
    if encoder.uses_pool:
        arguments["X_pool"] = watched
    counter = ProgressCounter(len(features) + 1, progress)

    def predict(kept: npt.NDArray[np.intp]) -> FloatArray:
        fitted = clone(encoder).fit(features[kept], responses[kept], **arguments)
        counter.add(1)
        predicted: FloatArray = fitted.predict(watched)
        return predicted

    everything = np.arange(len(features))
    whole = predict(everything)
    influence = np.empty((responses.shape[1], len(features)))
    for image in everything:
        influence[:, image] = np.sqrt(np.mean((predict(np.delete(everything, image)) - whole) ** 2, axis=0))
    return influence
