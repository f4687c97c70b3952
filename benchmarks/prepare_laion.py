"""Preparing a full-size session of LAION-fMRI: time beside `gzip -dc`, and peak memory.

SIMULATION: 143 x 143 x 143 voxels and 1,050 volumes of float32, random in an ellipsoid like a brain and 0 outside, a
few volumes over and over; speed does not depend on what the numbers mean.

    uv run python benchmarks/prepare_laion.py SCRATCH
"""

import argparse
import gzip
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from common import print_table

from braincorl.datasets.laion_fmri import LaionFolder

AFFINE = np.diag([1.778, 1.778, 1.778, 1.0])
N_DIFFERENT = 8  # volumes, over and over


def write(folder, size, n_volumes):
    """Write one session in the layout of the data set."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, size)
    distance = sum(part**2 for part in np.meshgrid(axis / 0.6, axis / 0.7, axis / 0.6, indexing="ij"))
    brain, mask = distance < 1, distance < 0.45
    betas, table = folder.session(1)
    betas.parent.mkdir(parents=True)
    header = nib.Nifti1Header()
    header.set_data_dtype("<f4")
    header.set_data_shape((size, size, size, n_volumes))
    header.set_sform(AFFINE, 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    # A gzip file may be several, one after the other: each volume is compressed once.
    different = []
    for _ in range(N_DIFFERENT):
        volume = np.zeros(brain.shape, dtype="<f4")
        volume[brain] = rng.standard_normal(int(brain.sum())).astype("<f4")
        different.append(gzip.compress(volume.tobytes(order="F"), compresslevel=1))
    with betas.open("wb") as file:
        file.write(gzip.compress(header.binaryblock + b"\0\0\0\0"))
        for number in range(n_volumes):
            file.write(different[number % N_DIFFERENT])
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), folder.mask)
    percent = np.where(mask, rng.uniform(0, 60, mask.shape), 0).astype("f4")
    nib.save(nib.Nifti1Image(percent, AFFINE), folder.ceiling("Noiseceiling4rep"))
    rows = [f"ses-01\t{1 + n // 88}\t{n}\timage{n % 700}.jpg" for n in range(n_volumes)]
    table.write_text("session\trun\tbeta_index\tlabel\n" + "\n".join(rows) + "\n")


# In a process of its own, which says how much memory it took at most.
PREPARE = """
import resource, sys
from braincorl.cli.main import main
status = main(["data", "prepare", "laion-fmri", sys.argv[1], "--subject", "1", "--output", sys.argv[2]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)
sys.exit(status)
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--size", type=int, default=143)
    parser.add_argument("--volumes", type=int, default=1050)
    options = parser.parse_args()
    folder = LaionFolder(options.scratch / "laion", 1)
    if not folder.mask.exists():
        write(folder, options.size, options.volumes)
    betas = folder.session(1)[0]
    start = time.perf_counter()
    subprocess.run(["gzip", "-dc", betas], stdout=subprocess.DEVNULL, check=True)
    plain = time.perf_counter() - start
    made = options.scratch / "person.h5"
    made.unlink(missing_ok=True)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, folder.root, made], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - start
    print("SIMULATION:", done.stdout.strip())
    raw = 4 * options.size**3 * options.volumes / 1e9
    print_table(
        ["session", "file", "prepare", "gzip -dc alone", "peak memory", "made"],
        [
            [
                f"{options.size}³ x {options.volumes}, {raw:.1f} GB",
                f"{betas.stat().st_size / 1e9:.1f} GB",
                f"{seconds:.0f} s",
                f"{plain:.0f} s",
                f"{float(done.stderr.split()[-1]):.0f} MiB",
                f"{made.stat().st_size / 1e6:.0f} MB",
            ]
        ],
    )


if __name__ == "__main__":
    main()
