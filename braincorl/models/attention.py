"""The native in-context transformer: a new person's voxels attend to remembered voxels, and to one another.

Earlier people's voxels are remembered as weights u_j of unit signal (`braincorl.priors`). A hypothesis h says how much
of a response is signal (r), how alike the voxel is to a remembered one (a), and how it differs from it (a residual
metric S). With standardised responses y and centred context features X,

    y ~ N(c Xu_j, r (1 - a²) X S Xᵀ + (1 - r) I)        c = a √r

In the eigenbasis of X S Xᵀ (`braincorl.closed_forms.bases`), with v = r (1 - a²) λ + 1 - r, the posterior over
remembered voxels **is** scaled dot-product attention with a key bias:

    logit_ij = < c z_i / v, k_j >  -  c² < k_j / v, k_j > / 2  +  log prior_ij        k_j = UᵀXu_j

queries are the new voxels' responses, keys what remembered voxels would have said to the same images, values their
weights. log prior_ij counts what an item stands for and is the place of anatomy: same region, or a Gaussian in
distance. What attention leaves of the response is ridge's in the same basis. Each head is one hypothesis; heads are
averaged by the evidence that the voxel's own responses give them, tempered, under a prior that is flat over likeness.

This is a voxel by itself, by ridge heads (a = 0) and attending heads. Where nothing is remembered, further layers read
all voxels of the person together (`braincorl.models.own_voxels`). Nothing is trained: the heads are the model, the
evidence weighs them.

    n images, k context coordinates, V voxels, J items, H heads, p features, D probes, R regions
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from braincorl.closed_forms.bases import Metric, context_basis
from braincorl.closed_forms.items import Items, Nearby
from braincorl.errors import InputError

# A voxel without signal is as likely as one with so much: the prior r^(-1/2) has no value at 0.
_LEAST_SIGNAL = 0.05
# The voxel by itself, and what the person's other voxels add.
LAYERS = ("alone", "components", "smoothed components", "own metric")


@dataclass(frozen=True)
class AttentionConfig:
    """What the heads suppose.

    Attributes
    ----------
    likenesses
        a of the attending heads; ridge heads are a = 0, and each likeness has the same prior probability.
    metrics
        Share of isotropic weights in the residual metrics of the ridge heads; without a memory there is one, isotropic.
    attended_metric
        That of the attending heads.
    signals
        r of the ridge heads.
    attended_signals
        r of the attending heads.
    rarity
        Where voxels are remembered, the prior of a share of signal is r to the power of minus this, by default
        Jeffreys' for a share near 0: most voxels of a person are weak. Where none are, it is flat.
    temperature
        Power of the evidence: real responses are no draw from any head, and evidence taken at its word trusts too few.
    elsewhere
        Log prior of an item in another region than the voxel's, beside 0 for one in the same.
    layers
        Of these the encoder is the plain mean where nothing is remembered, "alone" being the voxel by itself; beside a
        memory the others gained nothing on real people.
    """

    likenesses: tuple[float, ...] = (0.5, 0.75, 0.9)
    metrics: tuple[float, ...] = (0.1, 0.4, 1.0)
    attended_metric: float = 0.4
    signals: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    attended_signals: tuple[float, ...] = (0.15, 0.4)
    rarity: float = 0.5
    temperature: float = 0.5
    elsewhere: float = -4.0
    layers: tuple[str, ...] = LAYERS

    def __post_init__(self) -> None:
        """Refuse impossible heads."""
        shares = (*self.metrics, self.attended_metric, *self.signals, *self.attended_signals)
        if not (self.metrics and self.signals) or not all(0 <= share <= 1 for share in shares):
            raise InputError(f"shares of heads lie between 0 and 1, and some heads are needed, but they are {self}.")
        if not all(0 <= r < 1 for r in (*self.signals, *self.attended_signals)):
            raise InputError(f"signals must lie between 0 and 1, but are {self.signals}, {self.attended_signals}.")
        if not self.layers or not set(self.layers) <= set(LAYERS):
            raise InputError(f"layers must be some of {', '.join(LAYERS)}, but are {self.layers}.")
        signs = self.temperature > 0 and self.elsewhere <= 0 and self.rarity >= 0
        if not (signs and all(0 < a < 1 for a in self.likenesses)):
            raise InputError(
                f"likenesses lie between 0 and 1, temperature and rarity are not negative, elsewhere is: {self}."
            )


@dataclass(frozen=True)
class Heads:
    """All heads, ridge heads first.

    Attributes
    ----------
    basis
        Which residual metric (H,).
    likeness, signal
        a (H,) and r (H,).
    place
        Which width of neighbourhoods (H,); 0 where places are unknown.
    log_prior
        (H,).
    """

    basis: npt.NDArray[np.intp]
    likeness: npt.NDArray[np.float64]
    signal: npt.NDArray[np.float64]
    place: npt.NDArray[np.intp]
    log_prior: npt.NDArray[np.float64]

    @property
    def residual(self) -> npt.NDArray[np.float64]:
        """Variance of what differs from the remembered voxel, r (1 - a²)."""
        return self.signal * (1 - self.likeness**2)

    @property
    def gain(self) -> npt.NDArray[np.float64]:
        """Factor of a remembered voxel, a √r."""
        return self.likeness * np.sqrt(self.signal)


@dataclass(frozen=True)
class Written:
    """What the first layer writes for some voxels, in standardised units.

    Attributes
    ----------
    coef
        Weights (V, p).
    probability
        Of every head (V, H).
    between
        Variance between items and heads of the weights' projections on the probes (V, D).
    region
        Probability of every region, as attention tells it (V, R).
    """

    coef: Tensor
    probability: Tensor
    between: Tensor
    region: Tensor


def lay_out_heads(config: AttentionConfig, n_metrics: int, n_places: int) -> Heads:
    """List all heads with their prior: flat over likeness; over signal within a likeness, rarer where it is stronger.

    Parameters
    ----------
    config
        What the heads suppose.
    n_metrics
        Residual metrics; the attending heads have the last.
    n_places
        Widths that neighbourhoods may have, 1 where places are unknown; 0 where nothing is remembered.

    Returns
    -------
    Heads
    """
    rows = [(basis, 0.0, r, 0) for basis in range(n_metrics) for r in config.signals]
    for place in range(n_places):
        rows += [(n_metrics - 1, a, r, place) for a in config.likenesses for r in config.attended_signals]
    basis, likeness, signal, place_of = (np.array(column) for column in zip(*rows, strict=True))
    log_prior = -(config.rarity if n_places else 0.0) * np.log(np.maximum(signal, _LEAST_SIGNAL))
    for a in np.unique(likeness):
        log_prior[likeness == a] -= np.log(np.exp(log_prior[likeness == a]).sum())
    return Heads(basis, likeness, signal, place_of, log_prior)


class VoxelAttention:
    """The first layer for one person's context, ready to write the encoders of any of the person's voxels.

    Parameters
    ----------
    config
        What the heads suppose.
    centred
        Context features with their mean taken off (n, p), times the square roots of the images' precisions.
    scale
        Variance at which isotropic weights give unit signal over the pool.
    items
        What is remembered, if anything; of the voxels' region if that is known.
    probes
        Directions of feature space (D, p) along which the spread between items and heads is kept.
    n_places
        Widths that neighbourhoods may have.
    like
        A tensor of the device and precision to compute in.
    metric
        Residual metric of the ridge heads where nothing is remembered, instead of the isotropic one.

    Attributes
    ----------
    scale, like
        As given.
    bases, isotropic
        The context under each residual metric, and the share of isotropic weights in it.
    n_images, n_probes
        n and D.
    heads
        All of them.
    """

    def __init__(
        self,
        config: AttentionConfig,
        centred: npt.NDArray[np.float64],
        scale: float,
        items: Items | None,
        probes: npt.NDArray[np.float64],
        n_places: int,
        like: Tensor,
        metric: Metric | None = None,
    ) -> None:
        self.config, self.items, self.n_images, self.scale, self.like = config, items, len(centred), scale, like
        moment = None if items is None else items.moment
        # Under one likeness all residual metrics agree on what is alike, so the attending heads have one, the last.
        others = [share for share in config.metrics if share != config.attended_metric]
        self.isotropic = shares = [1.0] if items is None else [*others, config.attended_metric]
        metrics = [Metric(moment, share, scale) for share in shares] if metric is None else [metric]
        self.bases = [context_basis(centred, each) for each in metrics]
        self.heads = lay_out_heads(config, len(shares), 0 if items is None else n_places)
        self.n_probes = len(probes)
        self._vectors = [self.tensor(basis.vectors) for basis in self.bases]
        self._to_weights = [self.tensor(basis.to_weights.T) for basis in self.bases]
        self._to_probes = [self.tensor(basis.to_weights.T @ probes.T) for basis in self.bases]
        self._marginal = [
            residual * self.bases[basis].values + 1 - signal
            for basis, residual, signal in zip(self.heads.basis, self.heads.residual, self.heads.signal, strict=True)
        ]
        self._n_ridge = int((self.heads.likeness == 0).sum())
        self._attends = items is not None and self._n_ridge < len(self._marginal)
        if items is not None and self._attends:
            self._remember(items, probes)

    def write(self, responses: Tensor, nearby: Nearby | None = None) -> Written:
        """Write the encoders of a batch of voxels.

        Parameters
        ----------
        responses
            Standardised (n, V), times the same.
        nearby
            Places of these voxels; needed if there are any.

        Returns
        -------
        Written
        """
        z = [vectors.T @ responses for vectors in self._vectors]
        evidence = self._likelihood(responses, z)
        attended = None
        if self._attends:
            attended = self._attend(z[-1].T, nearby)
            evidence[self._n_ridge :] += attended.gain
        probability = (self.config.temperature * evidence + self.tensor(self.heads.log_prior)[:, None]).softmax(0)
        coef, between = self._combine(z, probability, attended)
        regions = responses.new_zeros(responses.shape[1], 0 if self.items is None else self.items.n_regions)
        if attended is not None:
            share = probability[self._n_ridge :] / probability[self._n_ridge :].sum(0)
            regions = torch.einsum("hv,hvr->vr", share, attended.regions)
        return Written(coef, probability.T, between, regions)

    def project(self, responses: Tensor) -> Tensor:
        """Projections (k, V) of standardised responses (n, V) in the first basis, which further layers read."""
        return self._vectors[0].T @ responses

    def bytes_per_voxel(self, n_neighbours: int | None) -> int:
        """Bytes of temporaries that a voxel of a batch needs."""
        k, p = len(self.bases[-1].values), self._to_weights[0].shape[1]
        size = self.like.element_size()
        if not self._attends:
            return size * (self.n_images + 16 * k + 6 * p)
        n_heads = len(self._marginal) - self._n_ridge
        width = self._values.shape[1] + self._spread.shape[2]
        if n_neighbours is None:
            return size * ((n_heads + 2) * len(self._keys) + 2 * n_heads * width + 8 * k + 4 * p)
        return size * (n_neighbours * (k + width + p + n_heads * (3 + self._spread.shape[2])) + 8 * k + 4 * p)

    def tensor(self, array: npt.ArrayLike) -> Tensor:
        """Put an array on the device, in the precision of the computation."""
        return torch.as_tensor(np.asarray(array)).to(self.like)

    def _remember(self, items: Items, probes: npt.NDArray[np.float64]) -> None:
        """Put keys, values and biases on the device, once for the person."""
        keys = items.weights @ self.bases[-1].rows.T
        known = np.flatnonzero(items.region >= 0)
        regions = np.zeros((len(keys), items.n_regions))
        regions[known, items.region[known]] = 1.0
        seen = items.weights @ probes.T
        biases, spread = [], []
        for h in range(self._n_ridge, len(self._marginal)):
            marginal = self._marginal[h]
            biases.append(-0.5 * self.heads.gain[h] ** 2 * (keys**2 @ (1 / marginal)))
            # An item's projection on the probes, less what the residual takes back.
            left = seen - keys * (self.heads.residual[h] / marginal) @ (self.bases[-1].to_weights.T @ probes.T)
            spread.append(left**2)
        self._weights, self._keys, self._biases = self.tensor(items.weights), self.tensor(keys), self.tensor(biases)
        self._values = self.tensor(np.hstack([keys, seen, regions]))
        self._spread = self.tensor(spread)
        self._everywhere = _Everywhere(self)

    def _likelihood(self, responses: Tensor, z: list[Tensor]) -> Tensor:
        """Log evidence of every head (H, V) without what remembered voxels say."""
        freedom, total = max(len(responses) - 1, 0), responses.square().sum(0)
        rows = []
        for h, basis in enumerate(self.heads.basis):
            marginal, noise = self._marginal[h], 1 - self.heads.signal[h]
            inside = self.tensor(1 / marginal) @ z[basis].square()
            outside = (total - z[basis].square().sum(0)).clamp_min(0) / noise if len(marginal) < freedom else 0.0
            constant = np.log(marginal).sum() + (freedom - len(marginal)) * np.log(noise)
            rows.append(-0.5 * (inside + outside + constant))
        return torch.stack(rows)

    def _attend(self, z: Tensor, nearby: Nearby | None) -> "_Attended":
        """Attention of voxels (V, k) over the items, by every attending head."""
        assert self.items is not None
        heads = range(self._n_ridge, len(self._marginal))
        queries = torch.stack([z * self.tensor(self.heads.gain[h] / self._marginal[h]) for h in heads])
        log_prior = self.items.log_mass
        if nearby is None:
            view: _Everywhere | _Around = self._everywhere
            bias = self._biases + self.tensor(log_prior - np.logaddexp.reduce(log_prior))
            attention, gain = view.attend(queries, bias)
        else:
            view = _Around(self, torch.as_tensor(nearby.index, device=z.device))
            weighted = [log_prior[nearby.index] + weight for weight in nearby.log_weight]
            prior = torch.stack([self.tensor(w - np.logaddexp.reduce(w, axis=1)[:, None]) for w in weighted])
            attention, gain = view.attend(queries, prior[torch.as_tensor(self.heads.place[self._n_ridge :])])
        k, d = self._keys.shape[1], self._spread.shape[2]
        seen, spread = view.mix(attention)
        return _Attended(
            gain=gain,
            attention=attention,
            keys=seen[..., :k],
            probes=seen[..., k : k + d],
            regions=seen[..., k + d :],
            spread=spread,
            view=view,
        )

    def _combine(self, z: list[Tensor], probability: Tensor, attended: "_Attended | None") -> tuple[Tensor, Tensor]:
        """Average all heads: weights (V, p), and how far items and heads spread along the probes (V, D)."""
        residuals = [torch.zeros_like(part) for part in z]
        mean = z[0].new_zeros(z[0].shape[1], self._to_probes[0].shape[1])
        square, within = torch.zeros_like(mean), torch.zeros_like(mean)
        for h, basis in enumerate(self.heads.basis):
            factor, share = self.tensor(self.heads.residual[h] / self._marginal[h])[:, None], probability[h][:, None]
            left, projected = z[basis], torch.zeros_like(mean)
            if attended is not None and h >= self._n_ridge:
                own, gain = h - self._n_ridge, float(self.heads.gain[h])
                left = left - gain * attended.keys[own].T
                projected = gain * attended.probes[own]
                taken = (factor * attended.keys[own].T).T @ self._to_probes[basis]
                within += (
                    share * gain**2 * (attended.spread[own] - (attended.probes[own] - taken).square()).clamp_min(0)
                )
            part = factor * left
            residuals[basis] += probability[h] * part
            projected = projected + part.T @ self._to_probes[basis]
            mean += share * projected
            square += share * projected.square()
        coef = torch.stack([part.T @ back for part, back in zip(residuals, self._to_weights, strict=True)]).sum(0)
        if attended is not None:
            gains = self.tensor(self.heads.gain[self._n_ridge :])
            coef += attended.weights(probability[self._n_ridge :] * gains[:, None])
        return coef, within + (square - mean.square()).clamp_min(0)


class _Everywhere:
    """All items are open to every voxel. Arrays of voxels by items are made once and used again for every batch."""

    def __init__(self, layer: VoxelAttention) -> None:
        self._layer = layer
        self._logits = self._attention = self._shared = layer.tensor(np.zeros(0))

    def attend(self, queries: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Give attention (A, V, J) and the log of the mean likelihood over items (A, V), a head at a time."""
        n_heads, n_voxels, _ = queries.shape
        if self._attention.numel() == 0 or self._attention.shape[1] < n_voxels:
            self._attention = queries.new_empty(n_heads, n_voxels, len(self._layer._keys))
            self._logits, self._shared = (torch.empty_like(self._attention[0]) for _ in range(2))
        attention, logits = self._attention[:, :n_voxels], self._logits[:n_voxels]
        gain = queries.new_empty(n_heads, n_voxels)
        for head, (query, own) in enumerate(zip(queries, bias, strict=True)):
            torch.addmm(own, query, self._layer._keys.T, out=logits)
            torch.softmax(logits, dim=-1, out=attention[head])
            gain[head] = logits.amax(-1) - attention[head].amax(-1).log()
        return attention, gain

    def mix(self, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over items of values (A, V, k + D + R), and of squared projections on the probes (A, V, D)."""
        return attention @ self._layer._values, attention @ self._layer._spread

    def weights(self, share: Tensor, attention: Tensor) -> Tensor:
        """Mean over items of their weights, summed over heads by their shares (A, V): (V, p)."""
        shared = self._shared[: share.shape[1]]
        torch.mul(attention[0], share[0][:, None], out=shared)
        for part, each in zip(attention[1:], share[1:], strict=True):
            shared.addcmul_(part, each[:, None])
        return shared @ self._layer._weights


class _Around:
    """Every voxel has its own items, those around its place."""

    def __init__(self, layer: VoxelAttention, index: Tensor) -> None:
        self._layer, self._index = layer, index

    def attend(self, queries: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Give attention (A, V, m) and the log of the mean likelihood over items (A, V)."""
        keys = self._layer._keys[self._index]
        logits = torch.einsum("avk,vmk->avm", queries, keys) + self._layer._biases[:, self._index] + bias
        return logits.softmax(-1), logits.logsumexp(-1)

    def mix(self, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over items of values (A, V, k + D + R), and of squared projections on the probes (A, V, D)."""
        values = torch.einsum("avm,vmc->avc", attention, self._layer._values[self._index])
        return values, torch.einsum("avm,avmd->avd", attention, self._layer._spread[:, self._index])

    def weights(self, share: Tensor, attention: Tensor) -> Tensor:
        """Mean over items of their weights, summed over heads by their shares (A, V): (V, p)."""
        return torch.einsum(
            "vm,vmp->vp", torch.einsum("av,avm->vm", share, attention), self._layer._weights[self._index]
        )


@dataclass(frozen=True)
class _Attended:
    """What the attending heads (A of them) found."""

    gain: Tensor  # log of the mean likelihood over items (A, V)
    attention: Tensor  # (A, V, J)
    keys: Tensor  # (A, V, k)
    probes: Tensor  # (A, V, D)
    regions: Tensor  # (A, V, R)
    spread: Tensor  # mean squared projection, less what the residual takes back (A, V, D)
    view: _Everywhere | _Around

    def weights(self, share: Tensor) -> Tensor:
        """Mean remembered weights (V, p), heads weighted by shares (A, V)."""
        return self.view.weights(share, self.attention)
