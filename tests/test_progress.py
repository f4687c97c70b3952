import importlib
import logging
import sys
import types

import pytest

from braincorl import progress
from braincorl.progress import in_notebook, progress_bar


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_elsewhere_a_line_every_ten_seconds_says_the_time_left(clock, caplog):
    with caplog.at_level(logging.INFO, "braincorl"), progress_bar("reading") as show:
        for done in range(0, 101, 5):
            show(done, 100)
            clock[0] += 4
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "reading: 15 of 100, about 68 s left"
    assert len(lines) == 6


def test_work_that_goes_on_does_not_count_what_was_there(clock, caplog):
    with caplog.at_level(logging.INFO, "braincorl"), progress_bar("reading") as show:
        show(80, 100)
        clock[0] = 10
        show(90, 100)
    assert caplog.records[0].getMessage() == "reading: 90 of 100, about 10 s left"


@pytest.mark.parametrize("place", ["terminal", "notebook"])
def test_terminals_and_notebooks_get_a_bar(place, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: place == "terminal", raising=False)
    if place == "notebook":
        shell = type("ZMQInteractiveShell", (), {"config": {}})()
        fake = types.ModuleType("IPython")
        fake.get_ipython = lambda: shell
        monkeypatch.setitem(sys.modules, "IPython", fake)
    assert in_notebook() == (place == "notebook")
    monkeypatch.setattr(logging.getLogger("braincorl.progress"), "isEnabledFor", lambda level: True)
    with progress_bar("fitting", "voxel") as show:
        show(20, 100)
        show(100, 100)
        importlib.import_module("tqdm.auto")
    assert "fitting" in capsys.readouterr().err


def test_without_a_notebook():
    assert not in_notebook()
