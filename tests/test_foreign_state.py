"""Results do not depend on what other libraries, or the user, have set in this process."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from people import make_person, make_pool
from published import TINY, make_context, make_network
from threadpoolctl import threadpool_limits

from braincorl import (
    BayesianRidgeEncoder,
    GroupPrior,
    GroupPriorEncoder,
    InContextEncoder,
    RidgeEncoder,
    load_checkpoint,
    load_encoder,
    simulate_people,
)
from braincorl.analysis import (
    cluster_voxels,
    compare_predictions,
    context_attention,
    context_influence,
    encoder_components,
    permutation_test,
    save_map,
    text_selectivity,
)
from braincorl.encoders.banded_ridge import BandedRidgeEncoder
from braincorl.features import GaborConfig, ImageEmbedder
from braincorl.fits.maps import read_map
from braincorl.metrics import explained_variance, mean_over_voxels, noise_ceiling, pearson_r, r2_score
from braincorl.priors.image_selection import select_images

# -- what may have been set --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def changed(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


@contextlib.contextmanager
def noisy_options():
    with pd.option_context("display.precision", 1, "mode.string_storage", "python"), np.printoptions(precision=1):
        yield


STATES = {
    "torch in double": lambda: changed(torch.set_default_dtype, torch.float64, torch.float32),
    "torch in half": lambda: changed(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "another device": lambda: changed(torch.set_default_device, "meta", "cpu"),
    "denormals are zero": lambda: changed(torch.set_flush_denormal, True, False),
    "deterministic torch": lambda: changed(torch.use_deterministic_algorithms, True, False),
    "no gradients": torch.no_grad,
    "gradients": torch.enable_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "products in half": lambda: changed(torch.set_float32_matmul_precision, "medium", "highest"),
    "numpy raises": lambda: np.errstate(all="raise"),
    "numpy is silent": lambda: np.errstate(all="ignore"),
    "sklearn trusts": lambda: sklearn.config_context(assume_finite=True, transform_output="pandas"),
    "random numbers drawn": lambda: changed(np.random.seed, 3, None),
    "two threads": lambda: threadpool_limits(2),
    "options": noisy_options,
}
# Threads and denormals change the order of sums or their last digits.
TOLERANCE = {"two threads": 1e-5, "denormals are zero": 1e-5, "autocast": 1e-5, "products in half": 1e-5}

# -- what is computed --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Inputs of everything below, made before anything is set."""
    folder = tmp_path_factory.mktemp("bench")
    pool, rng = make_pool(np.random.default_rng(1)), np.random.default_rng(2)
    people = [make_person(pool, rng) for _ in range(3)]
    X, y = people[2].pair
    torch.save(make_network(TINY).state_dict(), folder / "authors.pth")
    unit, wave = make_context(TINY.n_features, n_context=12, n_voxels=20)
    y[:, 3] = 5.0
    return {
        "folder": folder,
        "people": people,
        "memory": GroupPrior.fit([person.pair for person in people[:2]]),
        "X": X.astype(np.float32),
        "y": y.astype(np.float32),
        "unit": unit.astype(np.float32),
        "wave": wave.T.astype(np.float32),
        "pictures": rng.integers(0, 255, (3, 40, 40, 3), dtype=np.uint8),
    }


def fitted(encoder, X, y, std=True):
    encoder.fit(X[:40], y[:40])
    predicted = encoder.predict(X[40:], return_std=std)
    return [encoder.coef_, encoder.intercept_, encoder.noise_variance_, *(predicted if std else [predicted])]


def saved(b):
    encoder = InContextEncoder().fit(b["X"], b["y"])
    encoder.save(b["folder"] / "e.safetensors")
    return load_encoder(b["folder"] / "e.safetensors").predict(b["X"], return_std=True)


def banded(b):
    spaces = {"first": b["X"][:, :3], "second": b["X"][:, 3:]}
    encoder = BandedRidgeEncoder().fit(spaces, b["y"])
    return [encoder.coef_, encoder.shares_, *encoder.predict(b["X"], return_std=True)]


def of_metrics(b):
    y, other = b["y"], b["y"][::-1]
    scores = [metric(y, other) for metric in (explained_variance, r2_score, pearson_r)]
    return [*scores, noise_ceiling([0.0, 0.3, np.nan], [1, 3]), mean_over_voxels(scores[0])]


def of_words(b):
    encoder = RidgeEncoder().fit(b["X"], b["y"])
    found = text_selectivity(encoder, b["X"][:4], b["X"], background=b["X"][4:12])
    return [value for value in vars(found).values() if isinstance(value, np.ndarray)]


def of_components(b):
    encoder = RidgeEncoder().fit(b["X"], b["y"])
    found = encoder_components(encoder, b["X"], n_components=2)
    return [*cluster_voxels(encoder, n_clusters=3), found.scores, found.weights, found.explained]


def of_questions(b):
    y = b["y"][:, 10:30]
    noise = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
    test = permutation_test(y + noise, y, n_permutations=50)
    pair = compare_predictions(y, y + noise, y + 2 * noise[::-1])
    return [v for found in (test, pair) for v in vars(found).values() if isinstance(v, np.ndarray)]


def of_images(b):
    table = ImageEmbedder("gabor", gabor=GaborConfig(image_size=32, frequencies=(2, 4), n_orientations=4))
    return [table.embed(b["pictures"]).features]


def of_a_module(b):
    torch_module = b.setdefault("module", _module())
    return [ImageEmbedder(torch_module, transform=_as_tensor, precision="float32").embed(b["pictures"]).features]


def _module():
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(3 * 8 * 8, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    return torch.nn.Sequential(torch.nn.Flatten(), layer).eval()


def _as_tensor(picture):
    pixels = np.asarray(picture.resize((8, 8)), dtype=np.float32) / 255
    return torch.as_tensor(pixels.transpose(2, 0, 1).copy(), device="cpu")


def of_simulation(_):
    world = simulate_people(1, n_own=12, n_shared=4, n_features=6, voxel_size_mm=12, random_state=3)
    return [world.features, world.people[0].subject().responses]


def of_maps(b):
    space = simulate_people(1, n_own=12, n_shared=4, n_features=6, voxel_size_mm=12, random_state=3).people[0].subject()
    values = np.linspace(-1, 1, space.space.n_voxels)
    save_map(values, space.space, b["folder"] / "m.nii.gz")
    return [read_map(b["folder"] / "m.nii.gz", space.space)]


THINGS = {
    "ridge": lambda b: fitted(RidgeEncoder(), b["X"], b["y"], std=False),
    "folds": lambda b: fitted(RidgeEncoder(cv=5), b["X"], b["y"], std=False),
    "bayesian ridge": lambda b: fitted(BayesianRidgeEncoder(), b["X"], b["y"]),
    "banded": banded,
    "in-context": lambda b: fitted(InContextEncoder(device="cpu"), b["X"], b["y"]),
    "with a memory": lambda b: fitted(InContextEncoder(prior=b["memory"], device="cpu"), b["X"], b["y"]),
    "group prior": lambda b: fitted(GroupPriorEncoder(b["memory"], device="cpu"), b["X"], b["y"]),
    "published": lambda b: [
        InContextEncoder(b["folder"] / "authors.pth", precision="float32", device="cpu").fit(b["unit"], b["wave"]).coef_
    ],
    "network": lambda b: [np.asarray(load_checkpoint(b["folder"] / "authors.pth")(b["unit"], b["wave"].T).detach())],
    "attention": lambda b: [context_attention(load_checkpoint(b["folder"] / "authors.pth"), b["unit"], b["wave"])],
    "influence": lambda b: [context_influence(RidgeEncoder().fit(b["X"][:20], b["y"][:20]), b["X"][:20], b["y"][:20])],
    "memory": lambda b: [GroupPrior.fit([person.pair for person in b["people"][:2]]).moment],
    "select": lambda b: [np.asarray(select_images(b["X"], 5, b["memory"]))],
    "file": saved,
    "metrics": of_metrics,
    "words": of_words,
    "components": of_components,
    "questions": of_questions,
    "gabor": of_images,
    "own module": of_a_module,
    "simulation": of_simulation,
    "maps": of_maps,
}


@pytest.fixture(scope="module")
def expected(bench):
    return {name: THINGS[name](bench) for name in THINGS}


# What PyTorch has no part in cannot depend on its settings.
WITH_TORCH = {
    *("in-context", "with a memory", "group prior", "published", "network", "attention", "memory", "file", "own module")
}
OF_TORCH = {
    *("torch in double", "torch in half", "another device", "deterministic torch", "no gradients", "gradients"),
    *("inference", "autocast", "products in half"),
}
PAIRS = [(thing, state) for thing in THINGS for state in STATES if thing in WITH_TORCH or state not in OF_TORCH]


@pytest.mark.parametrize(("thing", "state"), PAIRS)
def test_results_do_not_depend_on(bench, expected, thing, state):
    with STATES[state]():
        found = THINGS[thing](bench)
    for one, other in zip(found, expected[thing], strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype
        if state not in TOLERANCE:
            np.testing.assert_array_equal(one, other)
        else:
            scale = np.nanmax(np.abs(other)) if other.dtype.kind == "f" and other.size else 0
            np.testing.assert_allclose(one, other, rtol=TOLERANCE[state], atol=TOLERANCE[state] * scale)


def test_states_end_with_the_test():
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_device().type == "cpu"
    assert not torch.are_deterministic_algorithms_enabled()
