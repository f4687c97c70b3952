import math

import numpy as np
import pytest
import torch
from published import golden_inputs

from braincorl.errors import InputError
from braincorl.models import ReferenceConfig, ReferenceTransformer

SIZES = ("vis", "clip", "dino", "siglip")


def layer_norm(x, state, name):
    centred = x - x.mean()
    return centred / math.sqrt((centred**2).mean() + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x, state, name):
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def leaky_relu(x):
    return np.where(x > 0, x, 0.1 * x)


def residual_block(x, state, name):
    hidden = linear(leaky_relu(layer_norm(x, state, f"{name}.block.0")), state, f"{name}.block.3")
    hidden = linear(leaky_relu(layer_norm(hidden, state, f"{name}.block.4")), state, f"{name}.block.7")
    return hidden + linear(x, state, f"{name}.bypass")


def attention(tokens, state, name, n_heads):
    """Token by token and head by head, as the equations are written."""
    width = tokens.shape[1]
    head = width // n_heads
    weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
    normed = [layer_norm(token, state, f"{name}.layer_norm_1") for token in tokens]
    queries = [weight[:width] @ (math.log(len(tokens)) * x) + bias[:width] for x in normed]
    keys = [weight[width : 2 * width] @ x + bias[width : 2 * width] for x in normed]
    values = [weight[2 * width :] @ x + bias[2 * width :] for x in normed]
    result = []
    for query in queries:
        heads = []
        for h in range(n_heads):
            part = slice(h * head, (h + 1) * head)
            logits = np.array([query[part] @ key[part] for key in keys]) / math.sqrt(head)
            share = np.exp(logits - logits.max())
            share /= share.sum()
            heads.append(sum(s * value[part] for s, value in zip(share, values, strict=True)))
        result.append(linear(np.concatenate(heads), state, f"{name}.attn.out_proj"))
    return np.array(result)


def plain_forward(network, features, responses):
    """The published architecture in NumPy, one voxel at a time."""
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    result = []
    for response in responses:
        pairs = [np.append(image, r) for image, r in zip(features, response, strict=True)]
        tokens = np.array([*state["cls_token"][0], *(residual_block(p, state, "early_layers.0") for p in pairs)])
        for layer in range(network.config.n_layers):
            name = f"transformer.{layer}"
            tokens = tokens + attention(tokens, state, name, network.config.n_heads)
            for i, token in enumerate(tokens):
                hidden = linear(layer_norm(token, state, f"{name}.layer_norm_2"), state, f"{name}.ffn.linear1")
                gate, value = np.split(hidden, 2)
                tokens[i] = token + linear(gate / (1 + np.exp(-gate)) * value, state, f"{name}.ffn.linear2")
        result.append(residual_block(tokens[0], state, "weight_pred.0"))
    return np.array(result)


def test_equals_a_plain_implementation(tiny_network, tiny_context):
    np.testing.assert_allclose(
        tiny_network(*tiny_context).numpy(), plain_forward(tiny_network, *tiny_context), rtol=1e-10
    )


def test_golden_values_of_a_tiny_network(tiny_network):
    responses = [[1.0, -1.0, 0.5], [0.0, 2.0, -2.0]]
    first = (-3.519376489563138, -0.08595965562949626, 2.068649642840526, 3.2396638349165485)
    second = (-3.5669037382096906, -0.11525990028815625, 2.0879099004177735, 3.278110645709227)
    golden = [
        [*first, -0.27363124342149375, -2.9491637148548406, -2.0155614398436077],
        [*second, -0.24332169318665292, -2.979810063644524, -2.05653110765138],
    ]
    np.testing.assert_allclose(tiny_network(np.eye(3, 6), responses).numpy(), golden, rtol=1e-10)


def test_context_order_does_not_matter(tiny_network, tiny_context):
    features, responses = tiny_context
    order = np.random.default_rng(1).permutation(len(features))
    torch.testing.assert_close(
        tiny_network(features[order], responses[:, order]), tiny_network(features, responses), rtol=1e-10, atol=1e-12
    )


def test_voxels_do_not_see_one_another(tiny_network, tiny_context):
    features, responses = tiny_context
    together = tiny_network(features, responses)
    for voxel, response in enumerate(responses):
        torch.testing.assert_close(tiny_network(features, response[None])[0], together[voxel], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_names_and_shapes_are_the_published_ones(published, size):
    with torch.device("meta"):
        network = ReferenceTransformer(getattr(ReferenceConfig, size)())
    listed = (published.folder / f"state_dict_{size}.txt").read_text().split()
    shapes = {name: "x".join(map(str, tensor.shape)) for name, tensor in network.state_dict().items()}
    assert shapes == dict(zip(listed[::2], listed[1::2], strict=True))


@pytest.mark.parametrize("size", ["vis", "clip", "dino"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_golden_outputs_of_the_published_network(published, size, dtype, tolerance):
    network = published.network(size, dtype)
    for n_context in (7, 30, 100):
        if f"{size}_n{n_context}_weights" not in published.golden:
            continue
        features, responses, queries = golden_inputs(network.config.n_features, n_context)
        weights = network(features, responses).double().numpy()
        golden = published.golden[f"{size}_n{n_context}_weights"]
        assert np.linalg.norm(weights - golden) <= tolerance * np.linalg.norm(golden)
        predictions = weights[:, :-1] @ queries.T + weights[:, -1:]
        golden = published.golden[f"{size}_n{n_context}_predictions"]
        assert np.linalg.norm(predictions - golden) <= tolerance * np.linalg.norm(golden)


def test_loading_is_strict(tiny_network):
    state = tiny_network.state_dict()
    del state["cls_token"]
    with pytest.raises(RuntimeError, match="cls_token"):
        ReferenceTransformer(tiny_network.config).load_state_dict(state)


def test_impossible_sizes_are_refused():
    with pytest.raises(InputError, match="multiple of n_heads, but 21"):
        ReferenceConfig(n_features=6, width=21)
    with pytest.raises(InputError, match="n_layers must be a positive integer, but is 0"):
        ReferenceConfig(n_features=6, width=20, n_layers=0)


def test_contexts_that_do_not_fit_are_refused(tiny_network, tiny_context):
    features, responses = tiny_context
    with pytest.raises(InputError, match=r"features must be \(n_context, 6\), but is \(9, 5\)"):
        tiny_network(features[:, :5], responses)
    with pytest.raises(InputError, match=r"responses must be \(n_voxels, 9\), but is \(9, 5\)"):
        tiny_network(features, responses.T)
