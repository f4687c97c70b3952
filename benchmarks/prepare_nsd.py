"""Preparing a full-size person of NSD: time, peak memory, share of the disk's read rate, and ten kills.

SIMULATION: int16 sessions of 750 random trials on a drawn design, 20,000 voxels of a mask; speed does not depend on
what the numbers mean. Files are dropped from the operating system's cache before each timed run. `--subject-1-cortex`
takes the grid of NSD's subject 1 at 1.8 mm and as many voxels as its cortex mask has, in a folded sheet; what lies
outside an ellipsoid is 0, as outside a brain.

    uv run python benchmarks/prepare_nsd.py --folder SCRATCH --sessions 40
    uv run python benchmarks/prepare_nsd.py --folder SCRATCH --sessions 40 --kills 10
    uv run python benchmarks/prepare_nsd.py --folder SCRATCH --sessions 4 --subject-1-cortex --container .hdf5
"""

import argparse
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import print_table
from nsd_writer import write_nsd_design, write_nsd_labels, write_nsd_ncsnr, write_nsd_session
from scipy.ndimage import gaussian_filter

from braincorl.datasets.nsd.layout import GRIDS, NsdFolder

AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])
N_VOXELS = 20_000
N_CORTEX = 226_000  # about what the cortex mask of subject 1 holds at 1.8 mm


def write(folder, options):
    """Write what is not there yet."""
    if not folder.design.is_file():
        write_nsd_design(folder.root)
    rng = np.random.default_rng(0)
    brain = np.ones(options.grid, dtype=bool)
    mask = np.zeros(options.grid, dtype=bool)
    if options.subject_1_cortex:
        brain, mask = folded_sheet(options.grid, options.voxels, rng)
    else:
        mask.ravel()[rng.permutation(mask.size)[: options.voxels]] = True
    write_nsd_labels(folder, "nsdgeneral", mask.astype(np.int16), AFFINE, {1: "nsdgeneral"})
    everything = np.ones(options.grid, dtype=bool)
    write_nsd_ncsnr(folder, rng.random(mask.size), everything, AFFINE)
    for number in range(1, options.sessions + 1):
        if not folder.session(number):
            stored = rng.integers(-900, 900, (750, int(brain.sum())), dtype=np.int16)
            write_nsd_session(folder, number, stored / np.float32(300), brain, AFFINE, options.container)


def folded_sheet(grid, n_voxels, rng):
    """Ellipsoid that fills the grid, and those of its voxels where a smooth random field is nearest to zero."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in grid), indexing="ij")
    brain = sum(axis**2 for axis in axes) <= 1
    depth = np.where(brain, np.abs(gaussian_filter(rng.standard_normal(grid), 4)), np.inf)
    mask = np.zeros(grid, dtype=bool)
    mask.ravel()[np.argsort(depth, axis=None)[:n_voxels]] = True
    return brain, mask


def drop(paths):
    """Ask the operating system to forget files, so that they are read from the disk."""
    os.sync()
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_rate(paths):
    """Bytes per second of reading files through, as the disk gives them."""
    drop(paths)
    start, total = time.perf_counter(), 0
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while block := file.read(16 * 2**20):
                total += len(block)
    return total, total / (time.perf_counter() - start)


def command(options, out):
    where = ["--folder", str(options.folder), "--sessions", str(options.sessions)]
    return [sys.executable, __file__, "--run", str(out), *where]


def run(options):
    """Prepare, in a process of its own, and say how long it took and how much memory."""
    import resource

    from braincorl.datasets import prepare
    from braincorl.datasets.nsd.person import open_nsd

    start, reading = time.perf_counter(), None

    def watch(done, total):
        nonlocal reading
        if reading is None and done >= total / 2:
            reading = time.perf_counter() - start

    recording = open_nsd(options.folder, 1, voxels="nsdgeneral", sessions=range(1, options.sessions + 1))
    prepare(recording, options.run, progress=watch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"reading {reading or 0:.1f} all {time.perf_counter() - start:.1f} peak {peak:.2f}")


def timed(options, paths):
    out = options.folder / "person.h5"
    out.unlink(missing_ok=True)
    size, rate = read_rate(paths)
    drop(paths)
    text = subprocess.run(command(options, out), capture_output=True, text=True, check=True).stdout
    reading, whole, peak = (float(value) for value in re.findall(r"[\d.]+", text))
    print(
        f"SIMULATION: {options.sessions} sessions, {options.sessions * 750} trials, grid {options.grid}, "
        f"{options.voxels} voxels, {options.container}, {size / 2**30:.1f} GiB read from a disk that gives "
        f"{rate / 2**20:.0f} MiB/s\n"
    )
    share = size / reading / rate
    per_session = size / 2**20 / options.sessions
    rows = [
        ["reading all sessions", f"{reading:.0f} s", f"{share:.0%} of the disk's rate"],
        ["reading one session, in the mean", f"{reading / options.sessions:.1f} s", f"{per_session:.0f} MiB on disk"],
        ["z-scoring, averaging, writing", f"{whole - reading:.0f} s", f"{out.stat().st_size / 2**30:.2f} GiB file"],
        ["whole preparation", f"{whole:.0f} s", f"peak memory {peak:.2f} GiB"],
    ]
    start = time.perf_counter()
    from braincorl.datasets import load_prepared

    subject = load_prepared(out)
    rows.append(["loading the prepared person", f"{time.perf_counter() - start:.1f} s", str(subject)])
    print_table(["step", "time", ""], rows)
    return whole


def kill(options, whole):
    """Kill the preparation at random moments, then let it finish, and compare bytes."""
    reference, out = options.folder / "person.h5", options.folder / "killed.h5"
    out.unlink(missing_ok=True)
    rng = np.random.default_rng(1)
    moments = []
    for _ in range(options.kills):
        process = subprocess.Popen(command(options, out), stdout=subprocess.DEVNULL)
        moment = rng.uniform(1.0, max(2.0, 0.3 * whole))
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments.append(moment)
    subprocess.run(command(options, out), check=True, stdout=subprocess.DEVNULL)
    equal = digest(out) == digest(reference)
    shown = ", ".join(f"{moment:.1f}" for moment in moments)
    print(f"killed {len(moments)} times, after {shown} s of work; then finished: same bytes {equal}")


def digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--grid", type=int, nargs=3, default=(60, 70, 55))
    parser.add_argument("--voxels", type=int, default=N_VOXELS)
    parser.add_argument("--subject-1-cortex", action="store_true", help="the grid and number of voxels of subject 1")
    parser.add_argument("--container", default=".nii", choices=(".nii", ".nii.gz", ".hdf5"))
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--write-only", action="store_true")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.subject_1_cortex:
        options.grid, options.voxels = GRIDS["func1pt8mm"][0], N_CORTEX
    options.grid = tuple(options.grid)
    if options.run:
        run(options)
        return
    folder = NsdFolder(options.folder, 1)
    write(folder, options)
    if options.write_only:
        return
    whole = timed(options, [folder.session(number)[0] for number in range(1, options.sessions + 1)])
    if options.kills:
        kill(options, whole)


if __name__ == "__main__":
    main()
