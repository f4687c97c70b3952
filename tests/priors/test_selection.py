import numpy as np
import pytest

from braincorl.errors import InputError
from braincorl.priors.selection import expected_variance, select_images


def test_every_choice_is_the_best_next_one(pool, mixture):
    """Against trying every image and inverting the full covariance each time."""
    X = pool[:25]
    chosen = select_images(X, 4, mixture)
    taken: list[int] = []
    for _ in range(4):
        left = [i for i in range(25) if i not in taken]
        values = [expected_variance(X, np.array([*taken, i]), mixture) for i in left]
        taken.append(left[int(np.argmin(values))])
    assert chosen.tolist() == taken


def test_chosen_images_leave_less_variance_than_random_ones(rng, pool, mixture):
    chosen = expected_variance(pool, select_images(pool, 12, mixture), mixture)
    random = [expected_variance(pool, rng.permutation(400)[:12], mixture) for _ in range(10)]
    assert chosen < min(random)


def test_mistakes_are_named(pool, mixture):
    with pytest.raises(InputError, match="between 1 and"):
        select_images(pool, 401, mixture)
    with pytest.raises(InputError, match="as in the prior"):
        select_images(pool[:, 1:], 3, mixture)
