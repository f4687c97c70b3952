"""The native in-context network: from a person's (features, responses) pairs to every voxel's linear encoder.

Images enter through their Gram matrix alone, so any number of features of any backbone will do, and the order of images
means nothing. What voxels share is computed once for the person (`braincorl.models.person`); a voxel then costs a few
matrix-vector products with matrices that all voxels share, and a very small transformer.

1.  `braincorl.models.smoothers` computes five closed-form encoders of each voxel, as signals f_c at the context images,
    and how well each of them predicts images of the context that it was not shown (five folds).
2.  The voxel's state is one token per smoother: how well it predicts for this voxel, for the voxels of its region, and
    for all voxels, and what is known of the context. Attention over these tokens gives each smoother a weight, one gain
    for all, and a factor for the predictive spread:

        f = Σ_c g_c f_c        g = (1 + tanh(a) / 2) softmax(ℓ)        w = c Xᵀ U Λ⁺ f

With fresh parameters g is .83 on Bayesian ridge: training starts from the closed form and moves away from it
only where that pays. In use, g is averaged with a fixed mix of the smoothers, `ANCHOR`: real people differ from all
that a network was trained on, and an average of encoders that err in different ways is the safest guess.

    V voxels, k = n - 1 context coordinates, C smoothers, D width
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from braincorl.errors import InputError
from braincorl.models.person import N_SHAPE, N_STATISTICS, PersonContext
from braincorl.models.smoothers import NAMES, smooth

# In the order of `NAMES`. Sums to .9: all of them are a little too sure of themselves with few images.
ANCHOR = (0.36, 0.18, 0.18, 0.18, 0.0)


@dataclass(frozen=True)
class NativeConfig:
    """Sizes of the network.

    Attributes
    ----------
    width
        D.
    depth
        Layers.
    n_heads
        Attention heads.
    insurance
        Weight of `ANCHOR` in use, 0 to 1.
    closed_form_start
        Begin training at Bayesian ridge rather than at an even mix.
    """

    width: int = 48
    depth: int = 2
    n_heads: int = 4
    insurance: float = 0.5
    closed_form_start: bool = True

    def __post_init__(self) -> None:
        """Refuse impossible sizes."""
        if min(self.width, self.n_heads) < 1 or self.depth < 0:
            raise InputError(f"sizes of a network are positive, but they are {self}.")
        if self.width % self.n_heads:
            raise InputError(f"width {self.width} must be a multiple of n_heads {self.n_heads}.")
        if not 0 <= self.insurance <= 1:
            raise InputError(f"insurance is a share, from 0 to 1, but is {self.insurance}.")


class AttentionBlock(nn.Module):
    """Attention among the tokens of a voxel, then a perceptron; pre-norm."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix tokens (V, C, D) of every voxel."""
        batch, length, width = tokens.shape
        qkv = self.qkv(self.attention_norm(tokens)).view(batch, length, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        tokens = tokens + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        output: Tensor = tokens + self.mlp(self.norm(tokens))
        return output


class NativeTransformer(nn.Module):
    """The network; see the top of the module.

    Parameters
    ----------
    config
        Sizes.
    """

    def __init__(self, config: NativeConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.token_in = nn.Linear(3 * N_STATISTICS + 2 + N_SHAPE, width)
        self.name = nn.Parameter(0.1 * torch.randn(len(NAMES), width))
        self.blocks = nn.ModuleList([AttentionBlock(width, config.n_heads) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(width)
        self.gate, self.rest = nn.Linear(width, 1), nn.Linear(width, 2)
        for last in (self.gate, self.rest):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        start = torch.zeros(len(NAMES))
        start[0] = 3.0 if config.closed_form_start else 0.0
        self.start = nn.Parameter(start)

    def forward(self, person: PersonContext, voxels: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """Smooth some voxels.

        Parameters
        ----------
        person
            From `read_person`.
        voxels
            Which of them.

        Returns
        -------
        signal : Tensor of shape (k, V)
            f, in the coordinates and units of `person.z`.
        scale : Tensor of shape (V,)
            Factor of the predictive standard deviation of Bayesian ridge.
        gates : Tensor of shape (V, C)
            g.
        """
        tokens = self.token_in(_tokens(person, voxels)) + self.name
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        gain, scale = self.rest(tokens.mean(1)).tanh().unbind(1)
        gates = (self.gate(tokens)[..., 0] + self.start).softmax(1) * (1 + 0.5 * gain)[:, None]
        if not self.training:
            anchor = torch.tensor(ANCHOR, dtype=gates.dtype, device=gates.device)
            gates = (1 - self.config.insurance) * gates + self.config.insurance * anchor
        signals = smooth(person.smoothers, person.z[:, voxels])
        return torch.einsum("vc,ckv->kv", gates, signals), torch.exp(scale), gates


def _tokens(person: PersonContext, voxels: slice) -> Tensor:
    """Give what a voxel's state begins with (V, C, 3 * 6 + 2 + 7)."""
    own = person.statistics[voxels]
    everyone = person.person_statistics.expand_as(own)
    about = torch.cat([person.levels[voxels], person.shape.to(own).expand(len(own), -1)], dim=1)
    about = about[:, None].expand(-1, own.shape[1], -1)
    return torch.cat([own, person.group_statistics[voxels], everyone, about], dim=-1)
