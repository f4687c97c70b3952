"""One bound on memory, and what it changes: nothing but memory."""

import numpy as np
import pytest

from braincorl.analysis.words.pool import make_pool
from braincorl.batching import at_a_time, batches, working_memory
from braincorl.encoders import BayesianRidgeEncoder
from braincorl.errors import InputError
from braincorl.questions.comparison import compare_predictions
from braincorl.questions.intervals import bootstrap_interval


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 2**30), ("500 MB", 500_000_000), ("1.5gib", 3 * 2**29), ("64 Mi", 2**26), ("2g", 2 * 10**9), ("4096", 4096)],
)
def test_a_size_is_what_people_write(text, size, monkeypatch):
    monkeypatch.setenv("BRAINCORL_MEMORY", text)
    assert working_memory() == size


@pytest.mark.parametrize("text", ["much", "-1 GB", "0", "1.2.3 GB", "4 GiBs", "."])
def test_another_word_is_refused(text, monkeypatch):
    monkeypatch.setenv("BRAINCORL_MEMORY", text)
    with pytest.raises(InputError, match=r"BRAINCORL_MEMORY is .* expected a size"):
        working_memory()


def test_batches_make_up_the_whole(monkeypatch):
    monkeypatch.setenv("BRAINCORL_MEMORY", "16 kB")
    assert at_a_time(100) == 10
    assert at_a_time(100, share=1) == 160
    assert at_a_time(10**9) == 1
    for size in ("auto", 7):
        rows = np.concatenate([np.arange(1000)[part] for part in batches(1000, 5, size)])
        np.testing.assert_array_equal(rows, np.arange(1000))


def results(rng):
    X, y = rng.standard_normal((40, 6)), rng.standard_normal((40, 150))
    other = y + rng.standard_normal(y.shape)
    yield BayesianRidgeEncoder().fit(X, y).coef_
    yield bootstrap_interval(rng.standard_normal((3, 500)), n_bootstrap=200)
    yield make_pool(rng.standard_normal((300, 6)), 6).spread(rng.standard_normal((200, 6)))
    yield compare_predictions(y, other, y + other, n_bootstrap=50, n_permutations=50).p


def test_memory_changes_no_result(monkeypatch):
    expected = list(results(np.random.default_rng(0)))
    monkeypatch.setenv("BRAINCORL_MEMORY", "20 kB")
    for one, other in zip(results(np.random.default_rng(0)), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
