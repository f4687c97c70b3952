import numpy as np
import pytest
from people import make_person, make_pool

from braincorl import GroupPrior
from braincorl.errors import InputError
from braincorl.priors.selection import expected_variance, select_images


@pytest.fixture
def pool(rng):
    return make_pool(rng)


@pytest.fixture
def prior(pool, rng):
    return GroupPrior.fit([make_person(pool, rng).pair])


def test_every_choice_is_the_best_next_one(pool, prior):
    """Against trying every image and inverting the full covariance each time."""
    X = pool[:25]
    chosen = select_images(X, 4, prior)
    taken: list[int] = []
    for _ in range(4):
        left = [i for i in range(25) if i not in taken]
        values = [expected_variance(X, np.array([*taken, i]), prior) for i in left]
        taken.append(left[int(np.argmin(values))])
    assert chosen.tolist() == taken


def test_chosen_images_leave_less_variance_than_random_ones(rng, pool, prior):
    chosen = expected_variance(pool, select_images(pool, 12, prior), prior)
    random = [expected_variance(pool, rng.permutation(400)[:12], prior) for _ in range(10)]
    assert chosen < min(random)


def test_mistakes_are_named(pool, prior):
    with pytest.raises(InputError, match="between 1 and"):
        select_images(pool, 401, prior)
    with pytest.raises(InputError, match="as in the prior"):
        select_images(pool[:, 1:], 3, prior)
