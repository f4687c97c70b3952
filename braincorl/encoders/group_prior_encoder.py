"""`GroupPriorEncoder`: attention to earlier people's voxels, one voxel at a time."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from braincorl.encoders.attending import AttendingEncoder, read_prior, remembered
from braincorl.errors import InputError
from braincorl.validation import FloatArray, as_float, check_batch_size, check_finite, check_real


class GroupPriorEncoder(AttendingEncoder):
    """Voxelwise encoder that starts from what other people's voxels are like.

    Every voxel attends to the remembered voxels of a `GroupPrior`; what these do not explain is ridge's. It is the
    exact posterior mean under the memory, for each of a few suppositions on how alike voxels are and how much of a
    response is signal, averaged by the evidence of the voxel's own responses (`braincorl.models.attention`). Usable
    from no image at all where regions or places are known.

    Parameters
    ----------
    prior : GroupPrior, path or name
        A memory, its file, or the name of a shipped one.
    robust : bool
        Leave out images in which the responses of all voxels are off.
    device : str
        "auto" (a GPU if there is one), "cpu", "cuda", …
    voxel_batch_size : "auto" or int
        Voxels at a time; bounds memory and changes no result but by rounding.

    Attributes
    ----------
    coef_ : ndarray of shape (n_voxels, n_features)
        Weights.
    intercept_ : ndarray of shape (n_voxels,)
        Intercepts.
    noise_variance_ : ndarray of shape (n_voxels,)
        Posterior mean variance of one response around the encoder.

    Examples
    --------
    >>> import numpy as np
    >>> from braincorl import GroupPrior
    >>> rng = np.random.default_rng(0)
    >>> kinds = rng.standard_normal((8, 2))
    >>> def person(n_images):
    ...     X = rng.standard_normal((n_images, 8))
    ...     signal = X @ kinds @ rng.standard_normal((2, 30))
    ...     return X, signal + rng.standard_normal(signal.shape)
    >>> prior = GroupPrior.fit([person(60), person(50)])
    >>> X, y = person(6)
    >>> GroupPriorEncoder(prior).fit(X, y).coef_.shape
    (30, 8)
    """

    uses_pool = False  # it can take one, but the prior has its own

    def __init__(
        self, prior: Any, robust: bool = True, device: str = "auto", voxel_batch_size: int | str = "auto"
    ) -> None:
        self.prior = prior
        self.robust = robust
        self.device = device
        self.voxel_batch_size = voxel_batch_size

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        X_pool: npt.ArrayLike | None = None,
        rois: npt.ArrayLike | None = None,
        positions: npt.ArrayLike | None = None,
    ) -> Self:
        """Fit every voxel.

        Parameters
        ----------
        X
            Features of the context (n_images, n_features). With no image or one, the memory is the encoder; responses
            are then in units of their standard deviation.
        y
            Responses (n_images, n_voxels), any unit.
        X_pool
            Features of any images (n_pool, n_features), no responses needed, over which a voxel's signal has unit
            variance. By default the images that the prior was learned with.
        rois
            One region label per voxel (n_voxels,), "" where unknown.
        positions
            Places of the voxels in the prior's common space (n_voxels, 3), or numbers of grayordinates (n_voxels,).
            Without effect where the prior knows no places.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If shapes do not match, values are not finite, or the prior is of another feature space.
        """
        from braincorl.encoders.by_attention import fit_by_attention  # PyTorch takes seconds to import
        from braincorl.models.attention import AttentionConfig
        from braincorl.models.hardware import resolve_device

        check_batch_size(self.voxel_batch_size)
        features, responses = self._check_few(X, y)
        prior = read_prior(self.prior, features.shape[1])
        fitted = fit_by_attention(
            AttentionConfig(),
            features,
            responses,
            **remembered(prior, X_pool, rois, positions, responses.shape[1]),
            robust=self.robust,
            device=resolve_device(self.device),
            voxel_batch_size=self.voxel_batch_size,
        )
        self._keep(fitted, prior.regions)
        return self

    def _check_few(self, X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Check as `_check_fit` does, but let contexts of no image or one pass."""
        self._forget()
        features, responses = np.asarray(X), np.asarray(y)
        if features.ndim != 2 or features.shape[0] >= 2 or responses.ndim != 2:
            return self._check_fit(X, y)
        if features.shape[0] != responses.shape[0]:
            raise InputError(f"X has {features.shape[0]} images but y has {responses.shape[0]}: both index images.")
        for array, name in ((features, "X"), (responses, "y")):
            check_real(array, name)
        features, responses = as_float(features), as_float(responses)
        check_finite(features, "X")
        self.n_features_in_, self._one_voxel = features.shape[1], False
        return self._checked_pair(features, responses)
