import resource
import shutil

import numpy as np
import pytest
import torch
from published import TINY, golden_inputs, make_context, make_network
from torch.nn import functional

from braincorl.errors import InputError, OutOfMemoryError
from braincorl.models import InferenceEngine, ReferenceConfig, engine, hardware


@pytest.fixture(scope="module")
def exact(tiny_network):
    return InferenceEngine(tiny_network, device="cpu", precision="float64")


@pytest.mark.parametrize("n_context", [1, 2, 9, 40])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_equals_the_reference(n_context, n_layers):
    network = make_network(ReferenceConfig(n_features=6, width=20, n_layers=n_layers, ffn_width=8))
    context = make_context(6, n_context, n_voxels=4)
    weights = InferenceEngine(network, device="cpu", precision="float64")(*context)
    np.testing.assert_allclose(weights, network(*context).numpy(), rtol=1e-11, atol=1e-12)


def test_features_far_from_zero_lose_no_digits(tiny_network):
    features, responses = make_context(6, 9, n_voxels=4)
    features += 1e4
    weights = InferenceEngine(tiny_network, device="cpu", precision="float64")(features, responses)
    np.testing.assert_allclose(weights, tiny_network(features, responses).numpy(), rtol=1e-6)


@pytest.mark.parametrize("size", ["vis", "clip"])
def test_golden_outputs(published, size):
    network = published.network(size)
    features, responses, _ = golden_inputs(network.config.n_features, 30)
    golden = published.golden[f"{size}_n30_weights"]
    for precision, tolerance in (("float64", 1e-9), ("float32", 1e-4), ("bfloat16", 6e-2)):
        weights = InferenceEngine(network, device="cpu", precision=precision)(features, responses)
        assert np.linalg.norm(weights - golden) <= tolerance * np.linalg.norm(golden)


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-11), ("float32", 1e-5), ("bfloat16", 3e-2)])
def test_batches_and_orders_do_not_matter(tiny_network, precision, tolerance):
    features, responses = make_context(6, 9, n_voxels=7)
    whole = InferenceEngine(tiny_network, device="cpu", precision=precision)(features, responses)
    voxels, images = np.random.default_rng(1).permutation(7), np.random.default_rng(2).permutation(9)
    for size in (1, 2, 3, 100):
        batched = InferenceEngine(tiny_network, device="cpu", precision=precision, voxel_batch_size=size)
        shuffled = batched(features[images], responses[voxels][:, images])
        assert np.linalg.norm(shuffled - whole[voxels]) <= tolerance * np.linalg.norm(whole)


def test_types_of_results(tiny_network, tiny_context):
    for precision, dtype in (("float64", np.float64), ("float32", np.float32), ("bf16", np.float32)):
        assert InferenceEngine(tiny_network, device="cpu", precision=precision)(*tiny_context).dtype == dtype


def test_later_changes_of_the_network_have_no_effect(tiny_context):
    network = make_network(TINY)
    engine_ = InferenceEngine(network, device="cpu", precision="float64")
    before = engine_(*tiny_context)
    for parameter in network.parameters():
        parameter.zero_()
    np.testing.assert_array_equal(engine_(*tiny_context), before)


def test_progress_counts_voxels(tiny_network):
    seen = []
    runner = InferenceEngine(tiny_network, device="cpu", voxel_batch_size=3)
    runner(*make_context(6, 9, n_voxels=7), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_no_voxels_give_no_weights(exact):
    assert exact(*make_context(6, 9, n_voxels=0)).shape == (0, 7)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
def test_compiled_layers_change_nothing(tiny_network):
    runner = InferenceEngine(tiny_network, device="cpu", precision="float64", voxel_batch_size=4, compile_blocks=True)
    context = make_context(6, 9, n_voxels=6)
    np.testing.assert_allclose(runner(*context), tiny_network(*context).numpy(), rtol=1e-9, atol=1e-11)


# -- attention ---------------------------------------------------------------------------------------------------------


def reference_attention(network, features, responses):
    """Attention maps (V, L, H, S, S) by the modules of the readable network."""
    maps = []

    def keep(block, inputs):
        tokens = block.layer_norm_1(inputs[0])
        query = np.log(tokens.shape[1]) * tokens
        maps.append(block.attn(query, tokens, tokens, average_attn_weights=False)[1])

    handles = [block.register_forward_pre_hook(keep) for block in network.transformer]
    network(features, responses)
    for handle in handles:
        handle.remove()
    return torch.stack(maps, dim=1).numpy()


def test_attention_equals_the_reference(exact, tiny_network, tiny_context):
    maps = reference_attention(tiny_network, *tiny_context)
    captured = exact.attention(*tiny_context, query_tokens=None)
    np.testing.assert_allclose(captured, maps, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(captured.sum(axis=-1), 1.0)


def test_attention_of_chosen_layers_heads_and_tokens(exact, tiny_network, tiny_context):
    maps = reference_attention(tiny_network, *tiny_context)
    chosen = exact.attention(*tiny_context, layers=[-1, 0], heads=[9, 2, 3], query_tokens=[0, 5])
    np.testing.assert_allclose(chosen, maps[:, [2, 0]][:, :, [9, 2, 3]][:, :, :, [0, 5]], rtol=1e-10)


def test_golden_attention(published):
    runner = InferenceEngine(published.network("vis"), device="cpu", precision="float64")
    features, responses, _ = golden_inputs(512, 30)
    maps = runner.attention(features, responses, layers=[0, -1]).mean(axis=2)
    np.testing.assert_allclose(maps[:, 0], published.golden["vis_n30_attention0"], rtol=1e-9)
    np.testing.assert_allclose(maps[:, 1], published.golden["vis_n30_attention_last"], rtol=1e-9)


def test_absent_layers_are_refused(exact, tiny_context):
    with pytest.raises(InputError, match="layers must lie between -3 and 2, but 3"):
        exact.attention(*tiny_context, layers=[3])


# -- memory ------------------------------------------------------------------------------------------------------------


def fail_above(n_voxels, monkeypatch, message="DefaultCPUAllocator: can't allocate memory: you tried to allocate"):
    """Let attention fail, as an allocator does, for batches of more than `n_voxels`."""
    attend, batches = functional.scaled_dot_product_attention, []

    def limited(query, *arguments, **options):
        batches.append(len(query))
        if len(query) > n_voxels:
            raise RuntimeError(message)
        return attend(query, *arguments, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", limited)
    return batches


def test_a_batch_that_does_not_fit_is_halved(exact, monkeypatch):
    context = make_context(6, 9, n_voxels=21)
    expected = exact(*context)
    batches = fail_above(3, monkeypatch)
    np.testing.assert_allclose(exact(*context), expected, rtol=1e-11)
    assert max(batches) == 21
    assert sorted(set(batches)) == [1, 2, 5, 10, 21]


def test_when_nothing_fits_the_error_says_the_sizes_and_the_remedy(exact, monkeypatch):
    fail_above(0, monkeypatch)
    with pytest.raises(OutOfMemoryError, match=r"not even one of 21 voxels .* 9 context images in float64") as caught:
        exact(*make_context(6, 9, n_voxels=21))
    assert "Use fewer context images" in str(caught.value)
    with pytest.raises(OutOfMemoryError, match="not even one of 2 voxels"):
        exact.attention(*make_context(6, 9, n_voxels=2))


def test_other_errors_are_not_taken_for_lack_of_memory(exact, monkeypatch, tiny_context):
    fail_above(0, monkeypatch, message="something else")
    with pytest.raises(RuntimeError, match="something else"):
        exact(*tiny_context)


def test_batches_follow_the_free_memory(exact, monkeypatch):
    monkeypatch.setattr(hardware, "available_memory", lambda device: 0)
    with pytest.raises(OutOfMemoryError, match="0 MiB are free on cpu"):
        exact(*make_context(6, 9, n_voxels=4))
    voxel = engine.bytes_per_voxel(TINY, 13, torch.float64, torch.device("cpu"))
    monkeypatch.setattr(hardware, "available_memory", lambda device: 5 * voxel)
    batches = fail_above(100, monkeypatch)
    exact(*make_context(6, 9, n_voxels=4))
    assert set(batches) == {2}  # half of what is free, and no more


def test_weights_that_do_not_fit(tiny_network, monkeypatch):
    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(engine.NetworkWeights, "of", fail)
    with pytest.raises(OutOfMemoryError, match="weights of the network do not fit"):
        InferenceEngine(tiny_network, device="cpu")


def test_a_limit_on_the_address_space_counts():
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = hardware.psutil.Process().memory_info().vms
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, hard))
        assert hardware.available_memory(torch.device("cpu")) < 2**29
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"device": "meta"}, 'device "meta" computes nothing'),
        ({"precision": "float8"}, "precision must be"),
        ({"voxel_batch_size": 0}, "voxel_batch_size must be"),
        ({"voxel_batch_size": "big"}, "voxel_batch_size must be"),
    ],
)
def test_unknown_options_are_refused(tiny_network, options, message):
    with pytest.raises(InputError, match=message):
        InferenceEngine(tiny_network, **{"device": "cpu", **options})


def test_values_that_are_not_finite_are_refused(exact, tiny_context):
    features, responses = tiny_context
    responses[1, 2] = np.nan
    with pytest.raises(InputError, match="responses must be finite"):
        exact(features, responses)


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_automatic_precision_follows_the_processor(monkeypatch, native, dtype):
    monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda device: native)
    assert hardware.resolve_precision("auto", torch.device("cpu")) == dtype
