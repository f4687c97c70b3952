"""Networks of the published architecture with weights that need no file, and its golden outputs."""

import functools
import zlib
from pathlib import Path

import numpy as np
import torch

from braincorl.models import ReferenceConfig, ReferenceTransformer

TINY = ReferenceConfig(n_features=6, width=20, n_layers=3, n_heads=10, ffn_width=8, n_learned_tokens=4)


def wave_state(network):
    """Weights that anyone can recompute: sines of a running index, scaled like trained weights."""
    state = {}
    for offset, (name, tensor) in enumerate(network.state_dict().items()):
        values = torch.sin(1.7 * torch.arange(tensor.numel(), dtype=torch.float64) + offset).reshape(tensor.shape)
        if tensor.ndim > 1:
            values = values * (2 / tensor.shape[-1]) ** 0.5
        else:
            values = 1 + 0.1 * values if name.endswith("weight") else 0.1 * values
        state[name] = values
    return state


def make_network(config, dtype=torch.float64):
    network = ReferenceTransformer(config)
    network.to(torch.float64).load_state_dict(wave_state(network))
    return network.to(dtype).eval().requires_grad_(False)


def make_context(n_features, n_context, n_voxels, seed=0):
    random = np.random.default_rng(seed)
    features = random.standard_normal((n_context, n_features))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, random.standard_normal((n_voxels, n_context))


def fill_tensor(name, shape):
    """Weights that depend on a tensor's name and shape alone: the generator's seed is the CRC-32 of the name.

    Matrices have variance 1 / fan-in; LayerNorms are near 1; biases are small; learned tokens 1 / (width + 1).
    """
    values = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    if name == "cls_token":
        return values / np.sqrt(shape[-1] + 1)
    if len(shape) > 1:
        return values / np.sqrt(shape[-1])
    return 1.0 + 0.1 * values if name.endswith("weight") else 0.02 * values


def golden_inputs(n_features, n_context):
    """Context of unit-norm features (n_context, n_features), responses (3, n_context), and queries (5, n_features)."""
    random = np.random.Generator(np.random.PCG64(1000 * n_features + n_context))
    features, responses = random.standard_normal((n_context, n_features)), random.standard_normal((3, n_context))
    queries = random.standard_normal((5, n_features))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, responses, queries / np.linalg.norm(queries, axis=1, keepdims=True)


class Published:
    """The published network's golden outputs, and its weights; see tests/golden/README.md."""

    def __init__(self):
        self.folder = Path(__file__).parent / "golden"
        with np.load(self.folder / "published_network.npz") as golden:
            self.golden = dict(golden)

    @functools.lru_cache(maxsize=1)  # noqa: B019 (one session-wide object)
    def state(self, size):
        with torch.device("meta"):
            network = ReferenceTransformer(getattr(ReferenceConfig, size)())
        return {n: torch.from_numpy(fill_tensor(n, tuple(t.shape))) for n, t in network.state_dict().items()}

    def network(self, size, dtype=torch.float64):
        with torch.device("meta"):
            network = ReferenceTransformer(getattr(ReferenceConfig, size)())
        network.load_state_dict({n: t.to(dtype) for n, t in self.state(size).items()}, assign=True)
        return network.requires_grad_(False)
