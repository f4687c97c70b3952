"""Time and peak memory of reading a person of forty sessions, 750 trials each, from NIfTI files.

SIMULATION: random integers on the grid of an 1.8 mm functional volume, 10,000 images of three trials.

    uv run python benchmarks/load_person.py --sessions 40 --folder SCRATCH
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE, N_VOXELS, TRIALS, REPEATS = (60, 70, 55), 20_000, 750, 3


def write(folder, n_sessions):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask.ravel()[rng.permutation(mask.size)[:N_VOXELS]] = 1
    nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / "mask.nii.gz")
    images = rng.permutation(np.arange(n_sessions * TRIALS // REPEATS).repeat(REPEATS))
    rows = [f"img{i:05d}\t{t // TRIALS + 1}" for t, i in enumerate(images)]
    (folder / "trials.tsv").write_text("image\tsession\n" + "\n".join(rows))
    for session in range(1, n_sessions + 1):
        path = folder / f"sub-01_ses-{session:02d}_betas.nii"
        if not path.is_file():
            volume = rng.integers(-900, 900, (*SHAPE, TRIALS), dtype=np.int16)
            nib.save(nib.Nifti1Image(volume, np.eye(4)), path)


def read(folder):
    from braincorl.datasets import load_subject

    start = time.perf_counter()
    subject = load_subject(
        sorted(folder.glob("*_betas.nii")), folder / "trials.tsv", folder / "mask.nii.gz", zscore="session"
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    kept = subject.responses.nbytes / 2**30
    print(f"{subject}: {seconds:.0f} s, peak memory {peak:.2f} GiB, of which responses {kept:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.folder)
        return
    write(options.folder, options.sessions)
    command = [sys.executable, __file__, "--read", "--folder", str(options.folder)]
    subprocess.run(command, check=True)  # a process of its own, so that writing does not count


if __name__ == "__main__":
    main()
