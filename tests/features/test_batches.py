import threading
import time

import numpy as np
import pytest

from braincorl.errors import InputError, OutOfMemoryError
from braincorl.features.backbones.backbone import Backbone, to_unit_length
from braincorl.features.batches import (
    choose_batch_size,
    embed_batch,
    in_batches,
    n_readers,
    read_ahead,
)


def backbone(forward, image_bytes=100, free=10_000):
    return Backbone(
        prepare=np.asarray,
        forward=forward,
        n_features=2,
        provenance={},
        unit_norm=False,
        image_bytes=image_bytes,
        free_bytes=lambda: free,
        max_batch=64,
    )


def sums(arrays):
    return np.stack([arrays.sum(axis=1), arrays.mean(axis=1)], axis=1).astype(np.float32)


def test_the_batch_fits_a_quarter_of_the_free_memory():
    assert choose_batch_size("auto", backbone(sums, image_bytes=100, free=10_000)) == 25
    assert choose_batch_size("auto", backbone(sums, image_bytes=1, free=10_000)) == 64
    assert choose_batch_size("auto", backbone(sums, image_bytes=10_000, free=10_000)) == 1
    assert choose_batch_size(7, backbone(sums)) == 7


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "many", True])
def test_impossible_batch_sizes_and_workers_are_refused(wrong):
    with pytest.raises(InputError, match="batch_size"):
        choose_batch_size(wrong, backbone(sums))
    with pytest.raises(InputError, match="workers"):
        n_readers(wrong)


def test_rows_come_in_order_and_no_more_than_the_window_ahead():
    started, lock = [], threading.Lock()

    def read(row):
        with lock:
            started.append(row)
        time.sleep(0.002 * (3 - row % 3))  # later rows are often ready first
        return np.array([row])

    taken = 0
    for array in read_ahead(read, range(30), window=4, workers=3):
        assert array[0] == taken
        taken += 1
        assert len(started) <= taken + 4
    assert taken == 30


def test_an_error_is_raised_at_its_row_and_the_threads_end():
    def read(row):
        if row == 5:
            raise InputError("row 5 is damaged")
        return np.array([row])

    seen = []
    with pytest.raises(InputError, match="row 5"):
        seen.extend(int(array[0]) for array in read_ahead(read, range(30), window=8, workers=3))
    assert seen == list(range(5))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("braincorl-read")]


def test_batches_hold_all_items():
    assert [len(batch) for batch in in_batches(iter(range(10)), 4)] == [4, 4, 2]
    assert list(in_batches(iter([]), 4)) == []


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
    ],
)
def test_a_batch_that_does_not_fit_is_halved(error):
    calls = []

    def forward(arrays):
        calls.append(len(arrays))
        if len(arrays) > 3:
            raise error
        return sums(arrays)

    arrays = list(np.random.default_rng(0).random((10, 4)))
    np.testing.assert_allclose(embed_batch(backbone(forward), arrays, False), sums(np.stack(arrays)))
    assert max(calls) == 10


def test_one_image_that_does_not_fit_is_an_error_with_its_need():
    def forward(_arrays):
        raise MemoryError

    with pytest.raises(OutOfMemoryError, match="one image needs about 5 MiB"):
        embed_batch(backbone(forward, image_bytes=5 * 2**20), [np.ones(3)] * 4, False)


def test_other_errors_of_the_network_are_not_hidden():
    def forward(_arrays):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        embed_batch(backbone(forward), [np.ones(3)] * 4, False)


def test_images_that_could_not_be_read_are_rows_of_nan():
    features = embed_batch(backbone(sums), [np.ones(3), None, np.zeros(3)], False)
    np.testing.assert_array_equal(np.isnan(features).all(axis=1), [False, True, False])
    assert np.isnan(embed_batch(backbone(sums), [None, None], False)).all()


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="NaN or infinity for 1 images"):
        embed_batch(backbone(sums), [np.ones(3), np.array([1, np.inf, 2])], False)


def test_pictures_of_two_sizes_are_refused():
    with pytest.raises(InputError, match=r"\(3,\) and \(4,\)"):
        embed_batch(backbone(sums), [np.ones(3), np.ones(4)], False)


def test_unit_length_keeps_zeros():
    np.testing.assert_allclose(to_unit_length(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]])
