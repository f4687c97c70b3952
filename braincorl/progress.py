"""Progress with the time left: a bar on a terminal or in a notebook, plain log lines elsewhere.

The library itself shows nothing; whoever calls it may pass such a progress on:

    with progress_bar("reading trials") as progress:
        subject = load_subject(betas, trials, mask, progress=progress)
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from braincorl.storage.files import Progress

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10  # where a bar cannot redraw itself, as in a job's log


@contextmanager
def progress_bar(label: str, unit: str = "") -> Iterator[Progress]:
    """Show progress while work goes on.

    Parameters
    ----------
    label
        What is being done.
    unit
        What is counted, for a bar.

    Yields
    ------
    Progress
        To be called with (done, total); on a terminal and in Jupyter it moves a bar, elsewhere it logs a line every ten
        seconds.
    """
    if in_notebook() or (sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)):
        from tqdm.auto import tqdm  # a widget in Jupyter, if widgets are installed; text otherwise

        with tqdm(desc=label, unit=unit or "it", leave=False) as bar:

            def show(done: int, total: int) -> None:
                if bar.total is None:
                    bar.reset(total)  # the way to tell a widget, too, how long it is
                    bar.initial = bar.n = done  # work that goes on from an earlier run does not begin at 0
                    bar.refresh()
                bar.update(done - bar.n)

            yield show
        return
    yield _LogLines(label, unit)


def in_notebook() -> bool:
    """Tell whether this is the kernel of a notebook."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


class _LogLines:
    """Says now and then how far the work is."""

    def __init__(self, label: str, unit: str = "") -> None:
        self._label = label
        self._unit = unit and f" {unit}"
        self._start = self._last = time.monotonic()
        self._first: int | None = None  # work that goes on from an earlier run does not begin at 0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._last >= SECONDS_BETWEEN_LINES and self._first < done < total:
            left = (now - self._start) / (done - self._first) * (total - done)
            logger.info("%s: %d of %d%s, about %.0f s left", self._label, done, total, self._unit, left)
            self._last = now
