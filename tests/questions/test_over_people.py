import numpy as np
import pandas as pd
import pytest
from scipy import stats

from braincorl.analysis import over_people
from braincorl.errors import InputError
from braincorl.questions.group_means import interval_over_people


def test_intervals_are_those_of_the_t_distribution_and_hold_the_mean_of_all_people(rng):
    """SIMULATION: four people, 4,000 times."""
    values = 0.1 + 0.05 * rng.standard_normal((4, 4000))
    mean, low, high = interval_over_people(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose([low, high], [expected.low, expected.high])
    np.testing.assert_allclose(mean, values.mean(axis=0))
    assert np.mean((low <= 0.1) & (high >= 0.1)) == pytest.approx(0.95, abs=0.012)


def test_people_without_a_figure_do_not_count():
    values = np.array([[1.0, np.nan, np.nan], [2.0, 3.0, np.nan], [4.0, np.nan, np.nan]])
    mean, low, high = interval_over_people(values)
    np.testing.assert_allclose(mean, [7 / 3, 3, np.nan])
    assert np.isfinite([low[0], high[0]]).all()
    assert np.isnan([low[1:], high[1:]]).all()


def test_tables_of_people_are_joined_by_what_names_their_rows():
    def table(value, regions=("all", "V1")):
        rows = [(roi, space, value + (space == "b")) for roi in regions for space in "ab"]
        return pd.DataFrame(rows, columns=["roi", "space", "mean"])

    tables = {"sub-1": table(0.1), "sub-2": table(0.3), "sub-3": table(0.5, ("all",))}
    found = over_people(tables, "mean", ["roi", "space"]).set_index(["roi", "space"])
    assert found.loc[("all", "a"), "mean"] == pytest.approx(0.3)
    assert found.loc[("V1", "b")].tolist()[:2] == pytest.approx([2, 1.2])
    low, high = found.loc[("all", "a"), ["mean_low", "mean_high"]]
    assert low < 0.3 < high
    assert found.index.tolist() == [("all", "a"), ("all", "b"), ("V1", "a"), ("V1", "b")]
    for changes, message in (
        ({"tables": {}}, "tables is empty"),
        ({"by": "roi"}, "rows of the same roi"),
        ({"values": "ev"}, "no column 'ev'"),
        ({"level": 95}, "level must be"),
    ):
        with pytest.raises(InputError, match=message):
            over_people(**{"tables": tables, "values": "mean", "by": ["roi", "space"]} | changes)
    with pytest.raises(InputError, match="at least one person"):
        interval_over_people([])
