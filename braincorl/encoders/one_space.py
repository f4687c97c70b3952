"""An encoder of several feature spaces, asked about one of them: the others stay as they are."""

from collections.abc import Mapping
from typing import Self

import numpy as np

from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.priors.image_digests import NO_IMAGES
from braincorl.validation import FloatArray


class OneSpace(LinearEncoder):
    """What an encoder of several spaces says of images that differ in one of them; made by `in_one_space`.

    Parameters
    ----------
    whole : LinearEncoder
        Fitted on all spaces side by side.
    columns : slice
        Those of the space.
    others : ndarray of shape (n_features,), optional
        Where the other spaces stay, such as at the mean of the context; by default 0.
    """

    def __init__(self, whole: LinearEncoder, columns: slice, others: FloatArray | None = None) -> None:
        self.whole = whole
        self.columns = columns
        self.others = others
        held = self._held()
        self.coef_ = whole.coef_[:, columns]
        self.intercept_ = whole.intercept_ + whole.coef_ @ held
        self.noise_variance_ = whole.noise_variance_
        self.n_features_in_ = self.coef_.shape[1]
        self.image_digests_ = NO_IMAGES  # fingerprints are of all spaces together

    def fit(self, X: object, y: object) -> Self:
        """Refuse: it is a view of an encoder that is fitted.

        Raises
        ------
        InputError
            Always.
        """
        raise InputError("OneSpace is a view of an encoder of several spaces: fit that encoder, and ask it again.")

    def _held(self) -> FloatArray:
        """All spaces' features, 0 in the one that is asked about (n_features,)."""
        n_features, dtype = self.whole.coef_.shape[1], self.whole.coef_.dtype
        held = np.zeros(n_features, dtype) if self.others is None else np.array(self.others, dtype=dtype)
        held[self.columns] = 0
        return held

    def _predictive_std(self, X: FloatArray) -> FloatArray:
        joined = np.tile(self._held(), (len(X), 1))
        joined[:, self.columns] = X
        return self.whole._predictive_std(joined)


def in_one_space(encoder: LinearEncoder, sizes: Mapping[str, int], name: str) -> OneSpace:
    """Ask an encoder of several spaces about one of them.

    Parameters
    ----------
    encoder
        Fitted on all spaces side by side.
    sizes
        Name -> number of features, in the order of the columns.
    name
        Of the space.

    Returns
    -------
    OneSpace

    Raises
    ------
    InputError
        If there is no such space, or the sizes are not the encoder's.
    """
    if name not in sizes:
        raise InputError(f"there is no feature space '{name}': the encoder has {', '.join(sizes)}.")
    n_features = encoder.coef_.shape[1]
    if sum(sizes.values()) != n_features:
        raise InputError(f"the spaces have {sum(sizes.values())} features together, but the encoder has {n_features}.")
    names = list(sizes)
    start = sum(sizes[before] for before in names[: names.index(name)])
    return OneSpace(encoder, slice(start, start + sizes[name]), getattr(encoder, "context_mean_", None))
