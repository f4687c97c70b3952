import numpy as np
import pytest
import torch

from braincorl.analysis.context.layers import LayerReadouts, read_layers
from braincorl.errors import InputError
from braincorl.models import ReferenceConfig, ReferenceTransformer


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ReferenceTransformer(ReferenceConfig(5, 12, n_layers=3, n_heads=2, ffn_width=8, n_learned_tokens=2)).double()


@pytest.fixture
def context(rng):
    return rng.standard_normal((7, 5)), rng.standard_normal((4, 7))


def test_the_last_layer_is_the_network(network, context):
    found = read_layers(network, *context)
    assert found.shape == (4, 4, 6)
    np.testing.assert_allclose(found[-1], network(*context).detach().numpy(), rtol=1e-12)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in network.transformer)


def test_layer_k_is_a_network_of_k_layers(network, context):
    found = read_layers(network, *context)
    short = ReferenceTransformer(ReferenceConfig(5, 12, n_layers=2, n_heads=2, ffn_width=8, n_learned_tokens=2))
    short.double().load_state_dict({k: v for k, v in network.state_dict().items() if "transformer.2" not in k})
    np.testing.assert_allclose(found[2], short(*context).detach().numpy(), rtol=1e-12)
    # Before the first layer no context has been seen.
    np.testing.assert_allclose(found[0], np.repeat(found[0, :1], 4, axis=0))
    assert found[1].std(axis=0).min() > 0


def test_fitted_readouts_find_a_linear_code(rng):
    encoders = rng.standard_normal((200, 6))
    code = encoders @ rng.standard_normal((6, 12)) + 3.0
    states = np.stack([np.ones((200, 12)), rng.standard_normal((200, 12)), code])
    readouts = LayerReadouts.fit(states[:, :150], encoders[:150], penalty=1e-9)
    found = readouts.read(states[:, 150:])
    error = ((found - encoders[150:]) ** 2).mean(axis=(1, 2))
    assert error[2] < 1e-6
    assert error[1] > 0.5
    np.testing.assert_allclose(found[0], np.repeat(encoders[:150].mean(axis=0)[None], 50, axis=0))


def test_readouts_of_other_voxels_are_refused(rng):
    with pytest.raises(InputError, match="expected \\(l \\+ 1, v, D\\)"):
        LayerReadouts.fit(rng.standard_normal((2, 9, 4)), rng.standard_normal((8, 3)))
