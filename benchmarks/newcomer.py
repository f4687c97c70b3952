"""A newcomer's path: every command of a page, one after the other, in a fresh folder of files like one's own, timed.

    uv run python benchmarks/newcomer.py SCRATCH [--page README.md]

The files are a SIMULATION: a person's single-trial betas of two sessions, a table of trials, a mask, regions, and a
folder of pictures. The pictures are made of Gabor patches whose contrasts are the simulated features, so that
features of the pictures tell something of the betas. Set-up (pip, uv, git) is listed and not run: its time is that of
a download. Speed is of this machine and of what else it does.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from braincorl import simulate_people
from braincorl.datasets.simulation import SimulatedPeople

ROOT = Path(__file__).resolve().parent.parent
SET_UP = ("pip ", "uv ", "git ", "python -m venv", "conda ", "source ", ".venv/bin/pytest")
CYCLES, ORIENTATIONS, PIXELS = 4, 8, 128  # a patch for each of 4 x 4 x 8 = 128 features


def main() -> None:
    """Write the files, run the commands of the page, and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="to make; it must not exist")
    parser.add_argument("--page", type=Path, default=ROOT / "README.md")
    parser.add_argument("--files-only", action="store_true", help="write the person's files and stop")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    write_files(options.folder)
    if options.files_only:
        return
    print(f"{options.page.name}, SIMULATION; the line of the page, and what each command took")
    print("| line | command | seconds | processor s | status | says |\n|---|---|---|---|---|---|")
    for line, language, code in commands(options.page):
        print("| " + " | ".join(map(str, [line, *run(language, code, options.folder)])) + " |", flush=True)


def write_files(folder: Path) -> None:
    """Write a simulated person's files, under the names that the pages use."""
    world = simulate_people(n_people=1, n_own=200, n_shared=40, layout="sheet", random_state=1)
    parts = world.people[0].write(folder)
    betas, table = nib.load(parts["betas"]), pd.read_csv(parts["trials"], sep="\t")
    half = len(table) // 2
    table["session"] = np.where(np.arange(len(table)) < half, 1, 2)
    table[["image", "session"]].to_csv(folder / "sub-01_trials.tsv", sep="\t", index=False)
    values = np.asarray(betas.dataobj)
    for session, volumes in ((1, slice(None, half)), (2, slice(half, None))):
        nib.save(nib.Nifti1Image(values[..., volumes], betas.affine), folder / f"sub-01_ses-{session}_betas.nii.gz")
    parts["mask"].rename(folder / "sub-01_mask.nii.gz")
    parts["rois"].rename(folder / "sub-01_dseg.nii.gz")
    next(folder.glob("*_dseg.tsv")).rename(folder / "sub-01_dseg.tsv")
    for name in ("betas", "trials"):
        parts[name].unlink()
    (folder / "stimuli").mkdir()
    for name, picture in zip(world.image_ids, pictures(world), strict=True):
        Image.fromarray(picture).save(folder / "stimuli" / f"{name}.png")


def pictures(world: SimulatedPeople) -> npt.NDArray[np.uint8]:
    """Make a picture of each image (n_images, y, x): patches on a grid, as strong as the features (n_images, 128)."""
    strength = np.clip(1 + 0.4 * (world.features - world.features.mean(axis=0)) / world.features.std(axis=0), 0, None)
    place = (np.arange(CYCLES) + 0.5) / CYCLES
    y, x = np.mgrid[:PIXELS, :PIXELS] / PIXELS
    patches = []
    for angle in np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS:
        for top in place:
            for left in place:
                along = (x - left) * np.cos(angle) + (y - top) * np.sin(angle)
                envelope = np.exp(-((x - left) ** 2 + (y - top) ** 2) / (2 * (0.5 / CYCLES) ** 2))
                patches.append(envelope * np.cos(2 * np.pi * CYCLES * along))
    drawn = strength @ np.stack(patches).reshape(len(patches), -1)
    grey = 128 + 40 * (drawn - drawn.mean()) / drawn.std()
    return np.clip(grey, 0, 255).astype(np.uint8).reshape(-1, PIXELS, PIXELS)


def commands(page: Path) -> Iterator[tuple[int, str, str]]:
    """Give the commands of a page: the number of the line, the language, and the code."""
    text = page.read_text(encoding="utf-8")
    for block in re.finditer(r"^```(sh|python)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        line = text[: block.start(2)].count("\n") + 1
        if block[1] == "python":
            yield line, "python", block[2]
            continue
        for command in re.finditer(r"^\S(?:.*\\\n)*.*$", block[2], flags=re.MULTILINE):
            yield line + block[2][: command.start()].count("\n"), "sh", command[0]


def run(language: str, code: str, folder: Path) -> list[Any]:
    """Run one command in a process of its own."""
    shown = "Python" if language == "python" else f"`{' '.join(code.replace(chr(92), ' ').split())[:60]}`"
    if language == "sh" and code.startswith(SET_UP):
        return [shown, "", "", "set-up", ""]
    surroundings = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    words = [sys.executable, "-c", code] if language == "python" else ["bash", "-c", code]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return [shown, f"{seconds:.1f}", f"{processor:.1f}", done.returncode, said[-1] if said else ""]


if __name__ == "__main__":
    main()
