"""How long the report of a large person takes, and how large it is. SIMULATION: the values are random.

A person of 20,000 voxels of 2 mm in MNI space, 512 features, 24 regions; 2,000 images ranked, with thumbnails; a curve
of three encoders.

    uv run python benchmarks/report.py [--keep report.html]
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from braincorl.analysis.benchmarking import Benchmark
from braincorl.analysis.report.fit_report import ReportOptions, write_report
from braincorl.datasets import VoxelSpace
from braincorl.datasets.simulation import posterior_cortex, smooth_fields
from braincorl.encoders import RidgeEncoder
from braincorl.features import FeatureTable
from braincorl.fits import Fit
from braincorl.fits.fit import write_fit

N_VOXELS, N_FEATURES, N_IMAGES, N_REGIONS = 20_000, 512, 2_000, 24


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, help="keep the report under this name")
    keep = parser.parse_args().keep
    rng = np.random.default_rng(0)
    brain = posterior_cortex(2)
    chosen = np.argsort(np.argwhere(brain.mask)[:, 1], kind="stable")[:N_VOXELS]  # the rearmost
    mask = np.zeros_like(brain.mask)
    mask[tuple(np.argwhere(brain.mask)[chosen].T)] = True
    space = VoxelSpace(np.ones(N_VOXELS, dtype=bool), mask, brain.affine)
    ceiling = np.clip(smooth_fields(brain, 1, 10.0, rng)[0][np.sort(chosen)] * 0.2 + 0.3, 0, 0.9)
    ev = ceiling * rng.beta(2, 3, N_VOXELS) - 0.05 * rng.random(N_VOXELS)
    maps = {"ev": ev, "r": np.sqrt(np.abs(ev)), "noiseceiling": ceiling}
    maps["evnormalized"] = np.where(ceiling > 0.1, ev / np.maximum(ceiling, 0.1), np.nan)
    where = space.coordinates()
    centres = where[rng.choice(N_VOXELS, N_REGIONS)]
    rois = {f"region {n}": np.linalg.norm(where - centre, axis=1) < 8 for n, centre in enumerate(centres)}
    names = np.asarray([f"img{n:05d}" for n in range(N_IMAGES)])
    features = rng.standard_normal((N_IMAGES, N_FEATURES), dtype=np.float32)
    encoder = RidgeEncoder().fit(features[:100], rng.standard_normal((100, N_VOXELS), dtype=np.float32))
    with tempfile.TemporaryDirectory() as scratch:
        fit, pictures = Path(scratch, "fit"), Path(scratch, "images")
        fit.mkdir()
        pictures.mkdir()
        for name in names:
            pixels = rng.integers(0, 255, (14, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((425, 425)).save(pictures / f"{name}.jpg")
        config = {"subject": "sub-01", "prefix": "sub-01_space-MNI152", "zscore": "none", "features_provenance": {}}
        config |= {"simulation": True, "encoder": "ridge"}
        write_fit(fit, Fit(encoder, space, rois, config, names[:100].tolist(), kept_maps=maps))
        rows = [
            (name, n, draw, 0.1 * np.log(n) * share + 0.01 * draw, 0.3, 1.0)
            for name, share in (("ridge", 0.5), ("bayesian-ridge", 0.7), ("in-context", 0.8))
            for n in (10, 20, 50, 100, 200)
            for draw in range(3)
        ]
        curve = pd.DataFrame(rows, columns=["encoder", "n_context", "draw", "ev", "r", "seconds"])
        Benchmark("sub-01", "Made up.", curve, N_VOXELS, float(ceiling.mean()), True).save(fit / "benchmark")
        start, start_cpu = time.perf_counter(), time.process_time()
        write_report(
            Path(scratch, "report.html"), Fit.load(fit), ReportOptions(None, FeatureTable(features, names), pictures)
        )
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        if keep:
            shutil.copy(Path(scratch, "report.html"), keep)
        size = Path(scratch, "report.html").stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{N_VOXELS:,} voxels, {N_REGIONS} regions, {N_IMAGES:,} images ranked")
    print(f"{seconds:.1f} s ({cpu:.1f} s of processor), {size:.2f} MB, peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
