"""What the benchmarks share: where real data are, tables, and peak memory."""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from braincorl.metrics import explained_variance

# What writes files laid out like NSD lives with the tests; a benchmark imports it after this module.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))


def real_data() -> Path:
    """Folder of the real measurements; ends the program where there is none."""
    root = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("BRAINCORL_SHARED", root.parent / "shared")) / "data"
    if not folder.is_dir():
        sys.exit(f"no real data at {folder}: set BRAINCORL_SHARED")
    return folder


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(flush=True)


def measure(function: Callable[[], Any], repeats: int = 5) -> tuple[float, float]:
    """Median seconds of some calls, and the most memory (MiB) that one of them took beyond what was held before."""
    function()  # warm up: imports, thread pools, page tables
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    process, peak, stop = psutil.Process(), 0, threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, process.memory_info().rss - before)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    function()
    stop.set()
    watcher.join()
    return sorted(seconds)[len(seconds) // 2], peak / 2**20


def mean_ev(measured: Any, predicted: Any) -> float:
    """Mean explained variance over the voxels that vary."""
    return float(np.nanmean(explained_variance(measured, predicted)))
