"""Folders with everything that the commands of README, pages and cards name, of small simulated people: SIMULATION."""

import shutil
import sys
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from nibabel.cifti2.cifti2_axes import BrainModelAxis, SeriesAxis
from nsd_writer import write_nsd_design
from PIL import Image
from published import TINY, make_network
from recipes import SMALL_RECIPE

from braincorl.cli import bids_app
from braincorl.cli.main import main
from braincorl.datasets import simulate_people
from braincorl.features import FeatureTable, save_features

sys.path.insert(0, str(Path(__file__).resolve().parent / "datasets"))

from layouts import TinyNsd

PROGRAMS = {"braincorl": main, "braincorl-bids": bids_app.main}
ENDS = {"betas": "effect_statmap.nii.gz", "trials": "_trials.tsv", "mask": "_mask.nii.gz", "rois": "_dseg.nii.gz"}
VERTICES = {"lh": 13, "rh": 17}


def run(program, *arguments):
    """Run a command in this process; it must end well."""
    try:
        status = PROGRAMS[program]([*map(str, arguments), "--quiet"])
    except SystemExit as stop:
        status = stop.code
    assert status == 0, (program, *arguments)


def lay_desk(folder):
    """Write two people's files, features, words and pictures, and fits of both."""
    world = simulate_people(2, n_own=100, n_shared=30, n_features=24, voxel_size_mm=9, random_state=1)
    save_features(folder / "features.npz", FeatureTable(world.features, world.image_ids, {"backbone": "simulation"}))
    words = FeatureTable(world.features[:8], np.array(["face", "place", *(f"thing {n}" for n in range(6))]))
    save_features(folder / "words.npz", words)
    new = FeatureTable(world.features[:5] + 1, np.array([f"new {n}" for n in range(5)]))
    save_features(folder / "new_features.npz", new)
    for number, person in enumerate(world.people, start=1):
        (folder / f"person{number}").mkdir()
        person.write(folder / f"person{number}")
    betas, trials = (files_of(folder, 1)[name] for name in ("betas", "trials"))
    image, table = nib.load(betas), pd.read_csv(trials, sep="\t")
    half = len(table) // 2
    sessions = table.assign(session=["1"] * half + ["2"] * (len(table) - half))
    sessions.to_csv(folder / "sub-01_trials.tsv", sep="\t", index=False)
    sessions[half:].to_csv(folder / "test_trials.tsv", sep="\t", index=False)
    for name, part in (("sub-01_ses-1", slice(half)), ("sub-01_ses-2", slice(half, None)), ("test", slice(half, None))):
        values = np.asarray(image.dataobj)[..., part]
        nib.save(nib.Nifti1Image(values, image.affine), folder / f"{name}_betas.nii.gz")
    shutil.copy(files_of(folder, 1)["mask"], folder / "sub-01_mask.nii.gz")
    (folder / "stimuli").mkdir()
    shutil.copytree(folder / "person1", folder / "derivatives" / "sub-01")
    for name in world.image_ids[:12]:
        Image.new("RGB", (32, 32), (len(name) * 7 % 255, 90, 20)).save(folder / "stimuli" / f"{name}.png")
    with h5py.File(folder / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    (folder / "rows.txt").write_text("0\n4\n")
    for number in (1, 2):
        files = [part for name, path in files_of(folder, number).items() for part in (f"--{name}", path)]
        fit = ("--encoder", "bayesian-ridge", "--output-dir", folder / "fits" / f"sub-0{number}")
        run("braincorl", "fit", "--features", folder / "features.npz", *files, *fit)
    return world


def files_of(folder, number):
    """Betas, trials, mask and regions of one of the two people."""
    return {name: next((folder / f"person{number}").glob(f"*{end}")) for name, end in ENDS.items()}


def lay_shelf(folder):
    """Write what the commands for experts name: a folder as NSD has it, a recipe, a checkpoint of the authors' form."""
    (folder / "FOLDER").mkdir()
    nsd = TinyNsd(folder / "FOLDER", write_nsd_design(folder / "FOLDER"))
    (folder / "RECIPE.toml").write_text(SMALL_RECIPE)
    weights = make_network(TINY).state_dict()
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}}, folder / "REFERENCE.pth")
    return nsd


def lay_recipes(folder):
    """Write what the page of recipes names beside, and the fit in `sub-01` that it takes for granted."""
    world, nsd = lay_desk(folder), lay_shelf(folder)
    shutil.move(folder / "FOLDER", folder / "nsd")
    shown = np.array(sorted(set(nsd.shown())))
    own = np.random.default_rng(2).standard_normal((len(shown), 24)).astype("f4")
    names, rows = np.concatenate([world.image_ids, shown]), np.concatenate([world.features, own])
    (folder / "features.npz").unlink()
    save_features(folder / "features.npz", FeatureTable(rows, names, {"backbone": "simulation"}))
    save_features(folder / "clip.npz", FeatureTable(own, shown, {"backbone": "one"}))
    save_features(folder / "gabor.npz", FeatureTable(own[:, ::-1] ** 2, shown, {"backbone": "another"}))
    large = np.random.default_rng(4).standard_normal((len(world.image_ids), 512)).astype("f4")
    save_features(folder / "resnet.npz", FeatureTable(large, world.image_ids))
    run("braincorl", "data", "prepare", "nsd", folder / "nsd", "--subject", 1, "--sessions", "1-3", "--output",
        folder / "person.h5")  # fmt: skip
    one, two = files_of(folder, 1), files_of(folder, 2)
    named = {
        one["betas"]: ("sub-01_betas.nii.gz", "betas.nii.gz"),
        two["betas"]: ("new.nii.gz",),
        one["trials"]: ("trials.tsv",),
        two["trials"]: ("new.tsv",),
        one["mask"]: ("mask.nii.gz",),
        one["rois"]: ("sub-01_desc-floc_dseg.nii.gz",),
    }
    for source, name in ((source, name) for source, names in named.items() for name in names):
        shutil.copy(source, folder / name)
    shutil.copy(next((folder / "person1").glob("*_dseg.tsv")), folder / "sub-01_desc-floc_dseg.tsv")
    regions = world.people[0].rois
    for region in ("FFA", "PPA"):
        volume = np.zeros(world.people[0].space.mask.shape, np.uint8)
        volume[world.people[0].space.mask] = regions[region]
        nib.save(nib.Nifti1Image(volume, world.people[0].space.affine), folder / f"{region}.nii.gz")
    run("braincorl", "prior", folder / "fits" / "sub-01", folder / "fits" / "sub-02", "--rois", "--output",
        folder / "prior.safetensors")  # fmt: skip
    lay_surface(folder, len(pd.read_csv(folder / "trials.tsv", sep="\t")))
    lay_cohort(folder, world)
    files = [part for name in ("betas", "trials", "mask") for part in (f"--{name}", one[name])]
    fit = ("--n-context", 60, "--encoder", "bayesian-ridge", "--output-dir", folder / "sub-01")
    run("braincorl", "fit", "--features", folder / "features.npz", *files, *fit)


def lay_surface(folder, n_trials):
    """Write betas and areas of a few vertices of both hemispheres."""
    rng = np.random.default_rng(3)
    betas = {side: rng.standard_normal((n, 1, 1, n_trials)).astype("f4") for side, n in VERTICES.items()}
    for side, values in betas.items():
        nib.save(nib.MGHImage(values, np.eye(4)), folder / f"{side}.betas.mgh")
        areas = np.arange(VERTICES[side]) % 3
        colours = np.array([[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0]])
        path = folder / f"{side}.HCP_MMP1.annot"
        nib.freesurfer.write_annot(path, areas, colours, ["Unknown", "V1", "FFC"], fill_ctab=True)
    left, right = (
        BrainModelAxis.from_surface(np.arange(n), n, f"CIFTI_STRUCTURE_CORTEX_{side}")
        for n, side in zip(VERTICES.values(), ("LEFT", "RIGHT"), strict=True)
    )
    stacked = np.concatenate([values[:, 0, 0].T for values in betas.values()], axis=1)
    image = nib.Cifti2Image(stacked, header=(SeriesAxis(0, 1, n_trials), left + right))
    image.to_filename(folder / "sub-01_betas.dtseries.nii")


def lay_cohort(folder, world):
    """Write two people as BIDS derivatives, once with features among them, and as a table."""
    shutil.copytree(folder / "person2", folder / "derivatives" / "sub-02")
    shutil.copytree(folder / "derivatives", folder / "betas")
    (folder / "betas" / "stimuli").mkdir()
    shutil.copy(folder / "features.npz", folder / "betas" / "stimuli")
    rows = [{"subject": f"0{n}", **files_of(folder, n)} for n in (1, 2)]
    pd.DataFrame(rows).to_csv(folder / "people.tsv", sep="\t", index=False)
    (folder / "test.txt").write_text("\n".join(world.shared))
