"""Networks of the published architecture with weights that need no file, and its golden outputs where they are."""

import functools
import importlib.util

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


class Published:
    """The published network's golden outputs, and the functions that fill its weights."""

    def __init__(self, folder):
        spec = importlib.util.spec_from_file_location("fill", folder / "fill.py")
        self.fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.fill)
        self.folder = folder
        with np.load(folder / "golden.npz") as golden:
            self.golden = dict(golden)

    @functools.lru_cache(maxsize=1)  # noqa: B019 (one session-wide object)
    def state(self, size):
        with torch.device("meta"):
            network = ReferenceTransformer(getattr(ReferenceConfig, size)())
        return {n: torch.from_numpy(self.fill.fill_tensor(n, tuple(t.shape))) for n, t in network.state_dict().items()}

    def network(self, size, dtype=torch.float64):
        with torch.device("meta"):
            network = ReferenceTransformer(getattr(ReferenceConfig, size)())
        network.load_state_dict({n: t.to(dtype) for n, t in self.state(size).items()}, assign=True)
        return network.requires_grad_(False)
