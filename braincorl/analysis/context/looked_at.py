"""Which context images a network looked at: attention, and tables of it (or of influence) by region.

Attention says where a network looked, not what it used: see `braincorl.analysis.context.influence`.

`context_attention` asks any network that has a method `attention(features, responses)`; the published one is adapted
here. Its token 0 becomes the weights, so what counts is how token 0 attends to the context's tokens, averaged over
heads, and over layers unless they are kept apart. "rollout" also follows attention through the tokens in between
(Abnar & Zuidema, Quantifying Attention Flow in Transformers, 2020): with A_l the attention of layer l averaged over
heads, the row of token 0 of Π_l (A_l + I) / 2.

Shapes: X (n_images, n_features), y (n_images, n_voxels), attention (n_voxels, n_images).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone

from braincorl.closed_forms.decomposition import moments, varying_voxels
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.validation import FloatArray, check_finite, check_pair

if TYPE_CHECKING:
    from braincorl.models import InferenceEngine

Array = npt.NDArray[np.float64]
How = Literal["direct", "rollout"]


@runtime_checkable
class AttendsToContext(Protocol):
    """A network that can tell which context images it looked at."""

    def attention(self, features: FloatArray, responses: FloatArray) -> npt.NDArray[Any]:
        """Attention of every voxel to every context image.

        Parameters
        ----------
        features
            (n_context, n_features), as the network reads them.
        responses
            (n_voxels, n_context), z-scored.

        Returns
        -------
        ndarray of shape (n_voxels, n_context), or (n_voxels, n_layers, n_context)
            Not negative.
        """


class _NativeTerms:
    """Shares of the context's images in the encoders of the native transformer.

    That network has no softmax over images. Its encoders are sums over them, w_v = Σ_i α_vi (x_i - x̄), and the share
    of an image is the length of its term, |α_vi| |x_i - x̄|. What a prior adds outside their span is no image's.
    """

    def __init__(self, encoder: LinearEncoder) -> None:
        self.encoder = encoder

    def attention(self, features: FloatArray, responses: FloatArray) -> npt.NDArray[Any]:
        """Length of every image's term (n_voxels, n_context); see `AttendsToContext`."""
        weights = clone(self.encoder).fit(features, responses.T).coef_.astype(np.float64)
        centred = features.astype(np.float64) - features.mean(axis=0)
        terms = weights @ np.linalg.pinv(centred)
        return np.asarray(np.abs(terms) * np.linalg.norm(centred, axis=1))


def context_attention(
    source: Any,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    layers: Sequence[int] | None = None,
    per_layer: bool = False,
    how: How = "direct",
) -> Array:
    """Tell which context images each voxel's encoder was made from, as far as attention tells.

    Parameters
    ----------
    source
        `InContextEncoder`, `ReferenceTransformer`, `InferenceEngine`, or any network that is an `AttendsToContext`.
    X
        Features of the context (n_images, n_features), as for `fit`.
    y
        Responses of the voxels to be looked at (n_images, n_voxels), as for `fit`; each voxel costs a whole pass
        through the published network (about a tenth of a second on two cores), so pass some of them.
    layers
        Layers of the published network to look at, negative ones counting from the end; by default all.
    per_layer
        Keep layers apart.
    how
        "direct" (what the token that becomes the weights looks at) or "rollout" (through the tokens in between; the
        published network only, needs all layers).

    Returns
    -------
    ndarray of shape (n_voxels, n_images), or (n_voxels, n_layers, n_images)
        Sums to 1 over images: attention to the network's own tokens is left out. Voxels of constant response get NaN.

    Raises
    ------
    InputError
        If the source has no attention, shapes do not match, or the options exclude each other.
    """
    if how not in ("direct", "rollout"):
        raise InputError(f"how must be 'direct' or 'rollout', but is {how!r}.")
    if how == "rollout" and (layers is not None or per_layer):
        raise InputError("rollout runs through all layers: leave out layers and per_layer, or pass how='direct'.")
    features, responses = check_context(X, y)
    network, length = _network_of(source, features)
    features = features / length
    mean, deviation = moments(responses)
    varying = varying_voxels(mean, deviation, responses.dtype)
    scored = ((responses - mean) / np.where(varying, deviation, 1.0)).T
    maps = _attend(network, features, scored, layers, how)
    if maps.ndim == 3 and not per_layer:
        maps = maps.mean(axis=1)
    if maps.shape[0] != responses.shape[1] or maps.shape[-1] != features.shape[0] or (maps.ndim == 3) != per_layer:
        raise InputError(
            f"attention of {type(network).__name__} has shape {maps.shape} for {responses.shape[1]} voxels and "
            f"{features.shape[0]} images: expected (n_voxels, n_context), or (n_voxels, n_layers, n_context) per layer."
        )
    total = maps.sum(axis=-1, keepdims=True)
    shares: Array = np.divide(maps, total, out=np.full(maps.shape, np.nan), where=total > 0)
    shares[~varying] = np.nan
    return shares


def context_by_roi(
    values: Mapping[str, npt.NDArray[np.floating[Any]]],
    image_ids: Sequence[str] | npt.NDArray[np.str_],
    rois: Mapping[str, npt.NDArray[np.bool_]],
) -> pd.DataFrame:
    """Average attention or influence over the voxels of each region.

    Parameters
    ----------
    values
        Name -> (n_voxels, n_images), such as {"attention": …, "influence": …}.
    image_ids
        Names of the images (n_images,).
    rois
        Region name -> bool (n_voxels,).

    Returns
    -------
    pandas.DataFrame
        One row per region (and "all") and image: `roi`, `image`, one column per value, NaN voxels left out; each
        region's images in falling order of the first value.

    Raises
    ------
    InputError
        If shapes do not match.
    """
    shapes = {array.shape for array in values.values()}
    if len(shapes) != 1 or next(iter(shapes))[1] != len(image_ids):
        raise InputError(
            f"values must all be (n_voxels, {len(image_ids)}), one column per image, but have shapes {sorted(shapes)}."
        )
    n_voxels = next(iter(shapes))[0]
    tables = []
    for name, members in [("all", np.ones(n_voxels, dtype=bool)), *rois.items()]:
        if members.shape != (n_voxels,):
            raise InputError(f"rois['{name}'] has shape {members.shape}, expected (n_voxels,) = ({n_voxels},).")
        means = {}
        for value, array in values.items():
            inside = array[members & np.isfinite(array).all(axis=1)]
            means[value] = inside.mean(axis=0) if len(inside) else np.full(array.shape[1], np.nan)
        table = pd.DataFrame({"roi": name, "image": np.asarray(image_ids), **means})
        tables.append(table.sort_values(next(iter(values)), ascending=False, kind="stable"))
    return pd.concat(tables, ignore_index=True)


def check_context(X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Give features (n, p) and responses (n, v) as arrays; a single voxel's may be (n,).

    Raises
    ------
    InputError
        If shapes do not match or numbers are not finite.
    """
    features, responses = np.asarray(X), np.asarray(y)
    responses = responses[:, None] if responses.ndim == 1 else responses
    if features.ndim != 2 or responses.ndim != 2:
        raise InputError(f"X and y must be (n_images, …), but have {features.ndim} and {responses.ndim} axes.")
    check_pair(features, responses)
    check_finite(features, "X")
    check_finite(responses, "y")
    return features, responses


def _network_of(source: Any, X: FloatArray) -> tuple[Any, float]:
    """Network that attends, and the length that it wants features to be divided by."""
    if isinstance(source, AttendsToContext):
        return source, 1.0
    # PyTorch takes seconds to import, so only who looks at a network waits for it.
    from braincorl.encoders.in_context import InContextEncoder
    from braincorl.encoders.published import feature_length
    from braincorl.models import InferenceEngine, ReferenceTransformer

    if isinstance(source, InContextEncoder):
        fitted = getattr(source, "feature_length_", None)
        engine = source.published_engine(X.shape[1])
        if engine is None:
            return _NativeTerms(source), 1.0
        return engine, feature_length(X, X) if fitted is None else fitted
    if isinstance(source, ReferenceTransformer):
        return InferenceEngine(source, precision="float32"), 1.0
    raise InputError(
        f"{type(source).__name__} has no attention: pass an InContextEncoder or a network, or use context_influence, "
        "which works with every encoder."
    )


def _attend(network: Any, features: FloatArray, responses: FloatArray, layers: Sequence[int] | None, how: How) -> Array:
    """Attention (n_voxels, n_context) or (n_voxels, n_layers, n_context)."""
    from braincorl.models import InferenceEngine

    if not isinstance(network, InferenceEngine):
        if layers is not None or how == "rollout":
            raise InputError(f"layers and rollout are of the published network, but this is {type(network).__name__}.")
        return np.asarray(network.attention(features, responses), dtype=np.float64)
    first = network.config.n_learned_tokens
    if how == "direct":
        maps = network.attention(features, responses, layers=layers, query_tokens=(0,))
        return np.asarray(maps[:, :, :, 0, first:].mean(axis=2), dtype=np.float64)
    return np.stack([_rollout(network, features, voxel)[first:] for voxel in responses])


def _rollout(engine: "InferenceEngine", features: FloatArray, responses: FloatArray) -> Array:
    """Token 0's share of every token, through all layers (S,)."""
    maps = engine.attention(features, responses[None], query_tokens=None)[0].mean(axis=1)
    row = np.eye(maps.shape[-1])[0]
    for layer in maps[::-1]:  # token 0 is read from the last layer, so its row goes through the layers from there
        row = 0.5 * (row @ layer.astype(np.float64) + row)
    return np.asarray(row)
