"""What holds for people, not for one person: means over people of any question's table, with intervals over people.

With x_k the figure of person k (a region's mean EV, a unique part, a difference of two encoders) of n people

    mean ± t_(n-1) · sd / √n

A bootstrap over people would be too narrow: it never leaves the range of the n figures, which holds the mean of all
people with a probability of 1 - 2^(1-n) where figures are symmetric about it, 7 in 8 of four people. Intervals over
images (`braincorl.questions.resampling`) say how much a figure hangs on the images that were shown, these how much it
hangs on whom was measured.

Letters: k people.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from braincorl.errors import InputError
from braincorl.questions.resampling import check_level

Array = npt.NDArray[np.float64]


def interval_over_people(values: npt.ArrayLike, level: float = 0.95) -> tuple[Array, Array, Array]:
    """Mean over people and its interval, by Student's t.

    Parameters
    ----------
    values
        A figure of every person (n_people, …); NaN where a person has none.
    level
        Confidence.

    Returns
    -------
    mean, low, high : ndarray of shape (…)
        The bounds are NaN where fewer than two people have the figure.

    Raises
    ------
    InputError
        If `level` is not between 0 and 1, or there are no people.
    """
    check_level(level)
    x = np.asarray(values, dtype=np.float64)
    if x.ndim < 1 or len(x) == 0:
        raise InputError(f"values has shape {x.shape}: expected (n_people, …), at least one person.")
    known = np.isfinite(x)
    n = known.sum(axis=0)
    mean = np.where(known, x, 0.0).sum(axis=0) / np.where(n > 0, n, np.nan)
    squares = np.where(known, x - mean, 0.0) ** 2
    freedom = np.where(n > 1, n - 1, np.nan)
    half = stats.t.ppf(0.5 + level / 2, freedom) * np.sqrt(squares.sum(axis=0) / freedom / np.maximum(n, 1))
    return np.asarray(mean), np.asarray(mean - half), np.asarray(mean + half)


def over_people(
    tables: Mapping[str, pd.DataFrame],
    values: str | Sequence[str],
    by: str | Sequence[str] = "roi",
    level: float = 0.95,
) -> pd.DataFrame:
    """Join one question's tables of several people: means over people, with intervals over people.

    Parameters
    ----------
    tables
        Person -> table, such as `regions` of `partition_variance` (value `mean`, by `roi`, `part`, `space`) or of
        `compare_predictions` (`difference`, by `roi`), or what `summarize_rois` gives (`ev_mean`).
    values
        Columns to average.
    by
        Columns that say which row is which; every person has each at most once.
    level
        Confidence of the intervals.

    Returns
    -------
    pandas.DataFrame
        One row for each of `by`, in the order of first appearance: `by`, `n_people` that have it, and for every value
        NAME, NAME_low, NAME_high.

    Raises
    ------
    InputError
        If there are no tables, a column is missing, or a person has a row twice.
    """
    check_level(level)
    keys, names = ([item] if isinstance(item, str) else list(item) for item in (by, values))
    if not tables:
        raise InputError("tables is empty: pass a table for every person.")
    for person, table in tables.items():
        missing = [column for column in (*keys, *names) if column not in table]
        if missing:
            raise InputError(f"the table of {person} has no column '{missing[0]}': its columns are {list(table)}.")
        if table.duplicated(keys).any():
            raise InputError(f"the table of {person} has rows of the same {', '.join(keys)}: name more columns in by.")
    joined = pd.concat(tables.values(), keys=tables.keys(), names=["person"]).reset_index(level="person")
    rows = []
    for label, part in joined.groupby(keys, sort=False, dropna=False):
        row: dict[str, Any] = dict(zip(keys, label, strict=True)) | {"n_people": len(part)}
        for name in names:
            found = interval_over_people(part[name].to_numpy(dtype=np.float64), level)
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, found), strict=True))
        rows.append(row)
    return pd.DataFrame(rows)
