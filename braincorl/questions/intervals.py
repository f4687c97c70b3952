"""Confidence intervals of means over voxels and draws, by the percentile bootstrap (Efron).

Voxels are drawn again with replacement, and where there are several draws of a context, draws too, one after the other.
Neighbouring voxels share signal and noise, so an interval over voxels is narrower than one over people would be: it
says how much the mean hangs on which of these voxels were counted, and nothing on people.
"""

import numpy as np

from braincorl.batching import at_a_time, batches
from braincorl.errors import InputError
from braincorl.validation import FloatArray


def bootstrap_interval(
    values: FloatArray, n_bootstrap: int = 1000, level: float = 0.95, random_state: int = 0
) -> tuple[float, float]:
    """Interval of the mean of values over voxels, or over draws and voxels.

    Parameters
    ----------
    values
        (n_voxels,) or (n_draws, n_voxels). NaN are left out of means.
    n_bootstrap
        Samples.
    level
        Confidence, between 0 and 1.
    random_state
        Seed.

    Returns
    -------
    low, high : float
        NaN without values.

    Raises
    ------
    InputError
        If an option or the shape is impossible.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or n_bootstrap < 1 or not 0 < level < 1:
        raise InputError(
            f"values has {table.ndim} axes, n_bootstrap is {n_bootstrap} and level {level}: expected (n_voxels,) or "
            "(n_draws, n_voxels), at least 1 sample, and a level between 0 and 1."
        )
    finite = np.isfinite(table)
    table = np.where(finite, table, 0.0)[:, finite.any(axis=0)]
    counts = finite[:, finite.any(axis=0)].astype(np.float64)
    n_draws, n_voxels = table.shape
    if n_voxels == 0:
        return float("nan"), float("nan")
    rng = np.random.default_rng(random_state)
    means = np.empty(n_bootstrap)
    # All draws before all voxels, so that the memory there is changes no number.
    drawn = np.stack([np.bincount(rng.integers(n_draws, size=n_draws), minlength=n_draws) for _ in range(n_bootstrap)])
    for part in batches(n_bootstrap, 16 * n_voxels, at_a_time(16 * n_voxels)):
        total, number = drawn[part] @ table, drawn[part] @ counts
        chosen = rng.integers(n_voxels, size=total.shape)
        sums = np.take_along_axis(total, chosen, axis=1).sum(axis=1)
        numbers = np.take_along_axis(number, chosen, axis=1).sum(axis=1)
        means[part] = np.divide(sums, numbers, out=np.full(len(sums), np.nan), where=numbers > 0)
    low, high = np.nanpercentile(means, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
