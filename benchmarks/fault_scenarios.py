"""Small commands of every verb, with the inputs that they need: what `faults.py` does harm to.

SIMULATION: people, pictures and networks are drawn; nothing depends on what they mean.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from PIL import Image

from braincorl.datasets import simulate_people
from braincorl.features import FeatureTable, load_features, save_features
from braincorl.models import ReferenceConfig, ReferenceTransformer

RECIPE = """
architecture = "reference"
seed = 3
n_validation = 2
[network]
n_features = 6
width = 20
n_layers = 1
n_heads = 10
ffn_width = 8
n_learned_tokens = 2
[[stages]]
name = "synthetic"
people = 8
people_per_step = 2
learning_rate = 5e-3
validate_every = 2
[stages.world]
n_images = [4, 10]
n_query = 8
n_voxels = [4, 8]
"""

# Formats that carry a checksum, or are checked against another file: damage must be noticed, or do no harm.
CHECKED = (".npz", ".safetensors", ".h5", ".gz", ".pth", ".pt", ".partial", ".png")


@dataclass(frozen=True)
class Scenario:
    """One command.

    Attributes
    ----------
    name
        For the table.
    arguments
        Of the command line; paths are relative to a folder with `in/` and `out/`. `{server}` stands for the URL of a
        bucket on this machine.
    inputs
        Names of inputs to lay into `in/`.
    earlier
        Name in `out/` -> the input that lies there before.
    again
        What a second run needs to replace the first one's result.
    keeps
        Patterns of what an interrupted run may leave in `out/` on purpose, to go on from.
    group
        Whether a Ctrl-C reaches processes of its own, too.
    slow
        Take it at every fourth of its turns only; another has the others.
    """

    name: str
    arguments: Sequence[str]
    inputs: Sequence[str]
    earlier: Mapping[str, str] = field(default_factory=dict)
    again: Sequence[str] = ("--overwrite",)
    keeps: Sequence[str] = ()
    group: bool = False
    slow: bool = False


PERSON = ("features.npz", "betas.nii.gz", "trials.tsv", "mask.nii.gz", "regions.nii.gz", "regions.tsv")
DATA = (
    "--features", "in/features.npz", "--betas", "in/betas.nii.gz", "--trials", "in/trials.tsv", "--mask",
    "in/mask.nii.gz",
)  # fmt: skip
FETCH = (
    "data", "fetch", "mosaic", "--subject", "sub-01_NSD", "--parallel", "2", "--accept-terms", "--endpoint-url",
    "{server}", "--output",
)  # fmt: skip
FIT = ("fit", *DATA, "--rois", "in/regions.nii.gz", "--n-context", "20")

SCENARIOS = [
    Scenario("fit", (*FIT, "--encoder", "ridge", "--output-dir", "out/fit"), PERSON),
    Scenario(
        "fit again",
        (*FIT, "--encoder", "bayesian-ridge", "--output-dir", "out/fit", "--overwrite"),
        PERSON,
        earlier={"fit": "fit1"},
        again=(),
    ),
    Scenario(
        "fit with a prior",
        (*FIT, "--prior", "in/prior.safetensors", "--output-dir", "out/deep/fit"),
        (*PERSON, "prior.safetensors"),
    ),
    Scenario(
        "fit with a network",
        ("fit", "--features", "in/few.safetensors", *DATA[2:], "--n-context", "20", "--checkpoint",
         "in/network.safetensors", "--output-dir", "out/fit"),
        (*PERSON[1:], "few.safetensors", "network.safetensors"),
    ),
    Scenario(
        "fit a prepared person",
        ("fit", "--features", "in/features.h5", "--betas", "in/prepared.h5", "--n-context", "20", "--encoder", "ridge",
         "--output-dir", "out/fit"),
        ("features.h5", "prepared.h5"),
    ),
    Scenario(
        "score",
        ("score", "out/fit", "--features", "in/features.h5", "--betas", "in/betas.nii.gz", "--trials", "in/trials.tsv"),
        ("features.h5", "betas.nii.gz", "trials.tsv"),
        earlier={"fit": "fit1"},
    ),
    Scenario(
        "score again",
        ("score", "in/fit1", *DATA[:6], "--output-dir", "out/scores", "--overwrite"),
        (*PERSON, "fit1"),
        earlier={"scores": "scores"},
        again=(),
    ),
    Scenario(
        "predict",
        ("predict", "in/fit2", "--features", "in/features.npz", "--std", "--output-dir", "out/p"),
        ("features.npz", "fit2"),
    ),
    Scenario(
        "query",
        ("query", "in/fit2", "face", "--versus", "place", "--text-features", "in/words.safetensors", "--features",
         "in/features.npz", "--output-dir", "out/q"),
        ("features.npz", "words.safetensors", "fit2"),
    ),
    Scenario(
        "report",
        ("report", "out/fit", "--score", "in/scores", "--features", "in/features.npz"),
        ("features.npz", "scores"),
        earlier={"fit": "fit1"},
    ),
    Scenario(
        "embed",
        ("embed", "in/pictures", "--backbone", "gabor", "--batch-size", "3", "--output", "out/f.npz"),
        ("pictures",),
        keeps=("f.npz.partial",),
    ),
    Scenario(
        "embed to HDF5, going on",
        ("embed", "in/pictures", "--backbone", "gabor", "--batch-size", "3", "--output", "out/f.h5"),
        ("pictures",),
        earlier={"f.h5.partial": "f.h5.partial"},
        keeps=("f.h5.partial",),
    ),
    Scenario(
        "embed again, with weights",
        ("embed", "in/pictures", "--backbone", "timm:test_vit", "--weights", "in/vit.safetensors", "--device", "cpu",
         "--output", "out/f.safetensors", "--overwrite"),
        ("pictures", "vit.safetensors"),
        earlier={"f.safetensors": "few.safetensors"},
        again=(),
        keeps=("f.safetensors.partial",),
    ),
    Scenario(
        "prior",
        ("prior", "in/fit1", "in/fit2", "--rois", "--pool", "in/features.npz", "--output", "out/prior.safetensors"),
        ("fit1", "fit2", "features.npz"),
    ),
    Scenario(
        "train",
        ("train", "in/recipe.toml", "--workers", "0", "--device", "cpu", "--output-dir", "out/run"),
        ("recipe.toml",),
        again=(),
        keeps=("run", "run/state.pt", "run/log.tsv"),
    ),
    Scenario(
        "train, going on, with a worker",
        ("train", "in/recipe.toml", "--workers", "1", "--device", "cpu", "--output-dir", "out/run"),
        ("recipe.toml",),
        earlier={"run": "run"},
        again=(),
        keeps=("run/state.pt", "run/log.tsv"),
        group=True,
    ),
    Scenario(
        "benchmark",
        ("benchmark", *DATA, "--encoders", "ridge", "--counts", "10", "--n-draws", "1", "--output-dir", "out/b"),
        PERSON,
    ),
    Scenario(
        "data prepare",
        ("data", "prepare", "bids", "in/bids", "--subject", "01", "--zscore", "session", "--output", "out/p.h5"),
        ("bids",),
        again=(),
        keeps=("p.h5.parts", "p.h5.parts/*"),
    ),
    Scenario(
        "data prepare again",
        ("data", "prepare", "bids", "in/bids", "--subject", "01", "--output", "out/p.h5"),
        ("bids",),
        earlier={"p.h5": "prepared.h5"},
        again=(),
        keeps=("p.h5.parts", "p.h5.parts/*"),
    ),
    Scenario("data check", ("data", "check", "in/bids"), ("bids",), again=()),
    Scenario(
        "convert",
        ("convert", "in/network.pth", "--output", "out/n.safetensors"),
        ("network.pth",),
    ),
    Scenario(
        "select",
        ("select", "--features", "in/features.npz", "--n", "5", "--prior", "in/prior.safetensors", "--output",
         "out/chosen.txt"),
        ("features.npz", "prior.safetensors"),
    ),
    Scenario(
        "compare",
        ("compare", "in/fit1", "in/fit3", *DATA[:6], "--permutations", "20", "--output-dir", "out/c"),
        (*PERSON[:3], "fit1", "fit3"),
    ),
    Scenario(
        "identify",
        ("identify", "in/fit3", *DATA[:6], "--ranking", "shared", "--output-dir", "out/i"),
        (*PERSON[:3], "fit3"),
    ),
    Scenario("demo", ("demo", "--n-draws", "1", "--output-dir", "out/demo"), (), slow=True),
    Scenario(
        "data fetch, going on",
        (*FETCH, "out/m"),
        (),
        earlier={"m": "m"},
        again=(),
        keeps=("m", "m/*"),
    ),
]  # fmt: skip


def make_smaller() -> None:
    """Let this process simulate fewer and coarser voxels for `demo` than its user gets: the steps are the same."""
    from braincorl.analysis import demonstration

    demonstration.simulate_people = partial(simulate_people, n_own=20, n_shared=12, n_features=24, voxel_size_mm=12)
    demonstration.N_CONTEXT = (10, 20)


SERVER = """
import sys
from s3 import LocalBucket, local_server
from braincorl.datasets.download.public_fetch import MOSAIC_BUCKET, MOSAIC_REGION
from braincorl.datasets.mosaic import BETAS

with local_server() as url:
    bucket = LocalBucket(url, MOSAIC_BUCKET, MOSAIC_REGION).emptied()
    bucket.put(f"{BETAS}/NaturalScenesDataset/sub-01_NSD.hdf5", bytes(range(256)) * 12_000)
    bucket.put("stimulus_info/nsd_stiminfo.tsv", b"filename\\n")
    print(url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def bucket_server() -> Iterator[str]:
    """Serve a bucket like MOSAIC's from a process of its own, and give its URL."""
    tests = str(Path(__file__).resolve().parents[1] / "tests")
    program = f"import sys; sys.path.append({tests!r})\n{SERVER}"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        if not url:
            sys.exit("the local S3 server does not start: is moto installed (uv sync)?")
        try:
            yield url
        finally:
            server.terminate()


def write_inputs(folder: Path, run: Callable[[Sequence[str], Path], None]) -> None:
    """Write every input.

    Parameters
    ----------
    folder
        Empty folder.
    run
        Runs a command line with a working folder, and fails if it does.
    """
    world = simulate_people(2, n_own=20, n_shared=12, n_features=24, voxel_size_mm=12, random_state=3)
    given = {"backbone": "simulation", "normalized": True}
    table = FeatureTable(world.features, world.image_ids, given)
    for name in ("features.npz", "features.h5"):
        save_features(folder / name, table)
    few = world.features[:, :6] / np.linalg.norm(world.features[:, :6], axis=1, keepdims=True)
    save_features(folder / "few.safetensors", FeatureTable(few, world.image_ids, given))
    names = np.array(["face", "place", *(f"thing {n}" for n in range(30))])
    save_features(folder / "words.safetensors", FeatureTable(world.features[: names.size] + 0.1, names, given))
    for number, person in enumerate(world.people, start=1):
        _write_person(folder, person, "" if number == 1 else "2")
    _write_bids(folder / "bids", world.people[0])
    (folder / "pictures").mkdir()
    for row, image in enumerate(np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)):
        Image.fromarray(image).save(folder / "pictures" / f"{row}.png")
    (folder / "recipe.toml").write_text(RECIPE)
    _write_networks(folder)
    _write_results(folder, run)


def _write_person(folder: Path, person: object, suffix: str) -> None:
    here = folder / f"person{suffix}"
    here.mkdir()
    for kind, path in person.write(here).items():
        ending = ".tsv" if kind == "trials" else ".nii.gz"
        name = "regions" if kind == "rois" else kind
        shutil.move(path, folder / f"{name}{suffix}{ending}")
        if kind == "rois":
            shutil.move(str(path).replace(".nii.gz", ".tsv"), folder / f"regions{suffix}.tsv")
    shutil.rmtree(here)


def _write_bids(root: Path, person: object) -> None:
    """Write a person of two sessions of compressed betas, a mask and regions."""
    func = root / "sub-01" / "func"
    func.mkdir(parents=True)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "simulation", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": []})
    )
    mask, half = person.space.mask, len(person.trials) // 2
    nib.save(
        nib.Nifti1Image(mask.astype("u1"), person.space.affine),
        func / "sub-01_task-x_space-T1w_desc-brain_mask.nii.gz",
    )
    for session, rows in ((1, slice(0, half)), (2, slice(half, None))):
        volume = np.zeros((*mask.shape, len(person.trials[rows])), "f4")
        volume[mask] = person.trials[rows].T
        stem = f"sub-01_ses-{session}_task-x"
        nib.save(nib.Nifti1Image(volume, person.space.affine), func / f"{stem}_space-T1w_stat-effect_statmap.nii.gz")
        rows_ = "".join(f"{image}\n" for image in person.trial_images[rows])
        (func / f"{stem}_trials.tsv").write_text("image\n" + rows_)


def _write_networks(folder: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = ReferenceTransformer(ReferenceConfig(6, 20, 1, 10, 8, 2))
    torch.save(network.state_dict(), folder / "network.pth")
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), folder / "vit.safetensors")


def _write_results(folder: Path, run: Callable[[Sequence[str], Path], None]) -> None:
    """Results of verbs that other verbs read."""
    work = folder / "work"
    work.mkdir()
    (work / "in").symlink_to(folder)
    other = [part.replace(".nii.gz", "2.nii.gz").replace("trials.tsv", "trials2.tsv") for part in FIT]
    run([*FIT, "--encoder", "ridge", "--output-dir", "in/fit1"], work)
    run([*other, "--encoder", "bayesian-ridge", "--output-dir", "in/fit2"], work)
    run([*FIT, "--encoder", "bayesian-ridge", "--output-dir", "in/fit3"], work)
    run(
        ["prior", "in/fit1", "in/fit2", "--rois", "--pool", "in/features.npz", "--output", "in/prior.safetensors"], work
    )
    run(["score", "in/fit1", *DATA[:6], "--output-dir", "in/scores"], work)
    run(["convert", "in/network.pth", "--output", "in/network.safetensors"], work)
    run(["data", "prepare", "bids", "in/bids", "--subject", "01", "--zscore", "session", "--output", "in/prepared.h5"],
        work)  # fmt: skip
    run([*FETCH, "in/m"], work)
    _write_unfinished(folder, work)
    shutil.rmtree(work)
    load_features(folder / "features.npz")


def _write_unfinished(folder: Path, work: Path) -> None:
    """Stop an embedding, a training and a download midway, as an interrupt would."""
    from braincorl.features import ImageEmbedder
    from braincorl.training import loop
    from braincorl.training.recipe import read_recipe

    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= total / 2:
            raise StoppedError

    import contextlib
    import os

    before = Path.cwd()
    os.chdir(work)
    try:
        with contextlib.suppress(StoppedError):
            ImageEmbedder("gabor", batch_size=3).embed([Path("in/pictures")], output=Path("in/f.h5"), progress=stop)
        with contextlib.suppress(StoppedError):
            loop.train(read_recipe(Path("in/recipe.toml")), Path("in/run"), n_workers=0, progress=stop)
    finally:
        os.chdir(before)
    largest = max((folder / "m").rglob("*.hdf5"))
    etag = json.loads((folder / "m" / ".braincorl-fetch.json").read_text())["files"]
    content = largest.read_bytes()
    name = f"{largest.name}.{etag[str(largest.relative_to(folder / 'm'))]['etag']}.partial"
    largest.with_name(name).write_bytes(content[: len(content) // 2])
    largest.unlink()
