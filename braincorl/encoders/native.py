"""The native network as an encoder of whole people: arrays in, every voxel's weights out, memory bounded.

With X the context's features, centred, M = X C these in the metric of the prior, and D² the images' precisions:

    K = D M Xᵀ D = U Λ Uᵀ        z = Uᵀ D (y - ȳ) / sd        f = network(Λ, z)        w = sd · Mᵀ D U Λ⁺ f

Without a group prior, C is isotropic, with unit mean variance of a voxel's signal over the pool of images.

Images in which the responses of all voxels are off (motion, a missed trial) get precisions below 1. Predictive
standard deviations are those of Bayesian ridge on the other images, times one factor per voxel from the network.

Letters: n images, p features, v voxels, k = n - 1 context coordinates, c smoothers.
"""

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from braincorl.encoders.decomposition import varying_voxels
from braincorl.errors import InputError
from braincorl.files import Progress
from braincorl.models.native import NativeTransformer
from braincorl.models.person import PersonContext, read_person
from braincorl.models.smoothers import Spectrum, readout
from braincorl.priors.components import Components, metric_rows
from braincorl.priors.robust import weights_under
from braincorl.validation import FloatArray, check_batch_size

# Numbers that a voxel of a batch needs at once, per context coordinate: its signals by five smoothers, and workspace.
_COPIES = 24
_BYTES = 128 * 2**20
# What a response's signal share is taken to be when spoilt images are looked for.
_TYPICAL_SHARE = 0.2


@dataclass(frozen=True)
class NativeFit:
    """What the network wrote.

    Attributes
    ----------
    coef
        (v, p).
    intercept
        (v,).
    spread
        Factor of the predictive standard deviations of Bayesian ridge (v,).
    shares
        Weight of each smoother, gain included (v, c).
    image_weight
        Relative precision of each image (n,).
    """

    coef: FloatArray
    intercept: FloatArray
    spread: FloatArray
    shares: FloatArray
    image_weight: npt.NDArray[np.float64]


def fit_native(
    network: NativeTransformer,
    X: FloatArray,
    y: FloatArray,
    scale: float,
    components: Components | None = None,
    regions: npt.NDArray[np.int64] | None = None,
    *,
    device: torch.device | str = "cpu",
    voxel_batch_size: int | str = "auto",
    progress: Progress | None = None,
) -> NativeFit:
    """Let the native network write every voxel's encoder.

    Parameters
    ----------
    network
        Trained.
    X
        Features (n, p).
    y
        Responses (n, v), any unit, of the type of `X`.
    scale
        c of `braincorl.encoders.evidence.pool_scale`.
    components
        A group prior whose second moment is the metric C.
    regions
        Index of every voxel's region (v,), -1 where unknown.
    device
        Where the network runs.
    voxel_batch_size
        Voxels at a time; changes results only by rounding.
    progress
        Called with (voxels done, v).

    Returns
    -------
    NativeFit
    """
    n_images = len(y)
    dtype = torch.float64 if y.dtype == np.float64 else torch.float32
    centre = X.mean(axis=0, dtype=np.float64)
    centred = X.astype(np.float64) - centre
    metric = scale * centred if components is None else metric_rows(centred, components)
    gram = metric @ centred.T
    weight = weights_under(_TYPICAL_SHARE / (1 - _TYPICAL_SHARE) * gram, y)
    mean = weight @ y.astype(np.float64) / weight.sum()
    deviation = np.sqrt(weight @ (y - mean) ** 2 / weight.sum())
    varying = varying_voxels(mean, deviation, n_images, y.dtype)
    safe = np.where(varying, deviation, 1.0)
    # Constant voxels are left out: they would water down what the others share.
    standard = torch.from_numpy(((y - mean) / safe)[:, varying].astype(y.dtype, copy=False)).to(device, dtype)
    batch = _batch_size(voxel_batch_size, n_images)
    if not varying.any():
        standard = torch.zeros(n_images, 1, dtype=dtype, device=device)
    root = torch.from_numpy(np.sqrt(weight)).to(device)
    with torch.inference_mode():
        person, vectors = read_person(
            torch.from_numpy(gram).to(device),
            standard,
            None if regions is None else torch.from_numpy(regions[varying]).to(device),
            root,
            batch,
        )
        context = Spectrum(vectors, person.smoothers.values)
        weighted = torch.from_numpy(metric.T).to(device) * root
        signal_to_weight = readout(weighted, context).cpu().numpy().astype(y.dtype)
        network = copy.deepcopy(network).to(device=device, dtype=dtype).eval()
        written = _run(network, person, signal_to_weight, batch, progress)
    coef, spread, shares = (_scatter(part, varying) for part in written)
    coef *= safe.astype(y.dtype)[:, None]
    middle = weight @ X.astype(np.float64) / weight.sum()
    return NativeFit(
        coef=coef,
        intercept=(mean - coef @ middle).astype(y.dtype),
        spread=spread,
        shares=shares,
        image_weight=weight,
    )


def check_precision(precision: str) -> None:
    """Refuse a precision that only published networks have.

    Raises
    ------
    InputError
        If it is none of "auto", "float32" and "float64".
    """
    if precision not in ("auto", "float32", "float64"):
        raise InputError(
            f"precision {precision!r} is for published networks; the native network computes in the type of "
            'the responses: pass "auto".'
        )


def _run(
    network: NativeTransformer,
    person: PersonContext,
    signal_to_weight: FloatArray,
    batch: int,
    progress: Progress | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weights in standardised units (v, p), factors of the spread (v,), shares of the smoothers (v, c)."""
    n_voxels = person.z.shape[1]
    coef = np.empty((n_voxels, len(signal_to_weight)), signal_to_weight.dtype)
    spread = np.empty(n_voxels, signal_to_weight.dtype)
    shares = np.empty((n_voxels, len(network.start)), signal_to_weight.dtype)
    for start in range(0, n_voxels, batch):
        part = slice(start, min(start + batch, n_voxels))
        signal, factor, gates = network(person, part)
        coef[part] = signal.T.cpu().numpy() @ signal_to_weight.T
        spread[part], shares[part] = factor.cpu().numpy(), gates.cpu().numpy()
        if progress is not None:
            progress(part.stop, n_voxels)
    return coef, spread, shares


def _scatter(values: FloatArray, varying: npt.NDArray[np.bool_]) -> FloatArray:
    """Give constant voxels zeros."""
    filled = np.zeros((varying.size, *values.shape[1:]), values.dtype)
    filled[varying] = values[: int(varying.sum())]
    return filled


def _batch_size(value: int | str, n_images: int) -> int:
    chosen = check_batch_size(value)
    return max(64, _BYTES // (4 * _COPIES * max(n_images, 40))) if chosen is None else chosen
