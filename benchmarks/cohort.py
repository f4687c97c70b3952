"""Many people: what workers cost and change, a batch queue played here, what of a person is not the encoder, rates.

SIMULATION throughout. People that lie in the folder from an earlier run are taken up again.

    uv run python benchmarks/cohort.py people --folder SCRATCH      40 people x 5,000 voxels: workers, one is killed
    uv run python benchmarks/cohort.py queue --folder SCRATCH       sbatch, qsub and bsub that start their job here
    uv run python benchmarks/cohort.py blocks --folder SCRATCH      a large person as one task, and in blocks of voxels
    uv run python benchmarks/cohort.py group --folder SCRATCH       memory and seconds of what a group gives together
    uv run python benchmarks/cohort.py profile --folder SCRATCH     one person's seconds, step by step
    uv run python benchmarks/cohort.py rates --folder SCRATCH --output docs/results/rates.json      for scale.py
    uv run python benchmarks/cohort.py training --folder SCRATCH    torchrun with two processes against one

A quick one: `people --people 8 --voxels 1000`. Processor seconds are those of this process and all that it starts; on
a machine that others use too they say more than the clock does.
"""

import argparse
import filecmp
import json
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import psutil
from common import print_table

from braincorl import fit_person
from braincorl.cohort import (
    BidsTree,
    FitOptions,
    FitTask,
    Person,
    PersonFiles,
    Workers,
    fit_cohort,
    fit_one,
    make_group,
    people_of_tree,
)
from braincorl.cohort.blocks import SEPARATE, cut, fit_block, join_blocks
from braincorl.cohort.people import describe_files
from braincorl.cohort.task import fit_command, peak_memory, read_responses
from braincorl.datasets import prepare, simulate_people
from braincorl.datasets.load import open_subject
from braincorl.encoders.choice import make_encoder
from braincorl.features import FeatureTable, load_features, save_features
from braincorl.fits.folder import bids_prefix
from braincorl.storage.files import write_json
from braincorl.threads import limited_threads
from braincorl.training.loop import train
from braincorl.training.recipe import read_recipe

SHARED_IMAGES = 20
LIMIT = 2 * 10**9  # bytes that each worker may use
# About how many voxels the simulated cortex has at an edge in mm; the first that is enough is thinned out.
VOXELS_AT = {8: 750, 5: 3_500, 4: 7_000, 3: 14_500, 2: 49_000}
EMPTY_TASKS = 400
CURVE = ["people done", "seconds", "processor seconds of all processes"]
SIZES = [f"{voxels}x100" for voxels in (1000, 5000, 20_000, 45_000)]
SIZES += [f"2000x{images}" for images in (50, 200, 500, 1000, 2000, 10_000)] + ["500x10000"]

SUBMIT = """#!/bin/sh
# Stands in for the queue's: keeps the job's script, and starts it here.
if [ -n "$1" ]; then cp "$1" "{folder}/job.sh"; else cat >"{folder}/job.sh"; fi
setsid sh "{folder}/job.sh" >"{folder}/job.log" 2>&1 &
echo "{answer}"
"""
CANCEL = '#!/bin/sh\nkill -- "-$1" 2>/dev/null\nexit 0\n'
FAKES = {
    "slurm": ("sbatch", "scancel", "Submitted batch job $!", {"queue": "short"}),
    "sge": ("qsub", "qdel", "Your job $! has been submitted", {"queue": "short", "resource_spec": "h_vmem=2G"}),
    "pbs": ("qsub", "qdel", "$!.server", {"queue": "short", "resource_spec": "select=1:ncpus=1:mem=2GB"}),
    "lsf": (
        "bsub",
        "bkill",
        "Job <$!> is submitted to queue <short>.",
        {"queue": "short", "lsf_units": "mb", "walltime": "00:10"},
    ),
}

PEOPLE_PER_STEP = 8
RECIPE = """
architecture = "reference"
n_validation = 8
[network]
n_features = 32
width = 64
n_layers = 4
n_heads = 4
ffn_width = 128
n_learned_tokens = 4
[[stages]]
name = "synthetic"
people = {people}
people_per_step = {people_per_step}
validate_every = 4
[stages.world]
n_images = [40, 40]
n_query = 32
n_voxels = [256, 256]
"""


# People


def make_people(folder, n_people, voxels, images, n_features=128):
    """Write simulated people, of exactly so many voxels, and the features of their images; once."""
    root = folder / f"{n_people}x{voxels}x{images}x{n_features}"
    if not (root / "done").is_file():
        shutil.rmtree(root, ignore_errors=True)
        edge = next(edge for edge, there in VOXELS_AT.items() if there >= voxels)
        world = simulate_people(
            n_people, n_own=images, n_shared=SHARED_IMAGES, n_features=n_features, voxel_size_mm=edge
        )
        for person in world.people:
            (root / "betas" / person.name).mkdir(parents=True)
            thin_out(person.write(root / "betas" / person.name)["mask"], voxels)
        description = {"Name": "Simulated people", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}
        generated = {"GeneratedBy": [{"Name": "simulation"}]}
        write_json(root / "betas" / "dataset_description.json", description | generated)
        save_features(root / "features.npz", FeatureTable(world.features, world.image_ids, {"backbone": "simulation"}))
        (root / "done").touch()
    return root, people_of_tree(BidsTree(root / "betas"))


def thin_out(path, voxels):
    """Keep so many voxels of a mask, evenly."""
    image = nib.load(path)
    mask = np.asarray(image.dataobj)
    there = np.flatnonzero(mask)
    if there.size < voxels:
        sys.exit(f"the simulated cortex has {there.size} voxels, fewer than {voxels}")
    kept = np.zeros(mask.size, dtype=np.uint8)
    kept[there[np.linspace(0, there.size - 1, voxels).round().astype(int)]] = 1
    nib.save(nib.Nifti1Image(kept.reshape(mask.shape), image.affine), path)


def fit_plainly(people, chosen, folder):
    """Fit people by the library's calls alone, one after the other."""
    with limited_threads(1, torch=True):
        table = load_features(chosen.features)
        for person in people:
            files = person.files()
            subject = read_responses(person.name, files, chosen, table)
            notes = {"features": chosen.features, **describe_files(files), "prior": None, "checkpoint": None}
            fit = fit_person(
                subject,
                table,
                make_encoder(chosen.encoder, None),
                context=chosen.n_context,
                prefix=bids_prefix(files.betas[0], subject.name),
                notes={"command": fit_command(FitTask(person, chosen, folder), files), **notes},
            )
            fit.save(folder / person.name)


def same_bytes(people, one, other):
    """Whether all people's folders hold the same files, to the byte."""
    for person in people:
        a, b = one / person.name, other / person.name
        names = [sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file()) for root in (a, b)]
        if names[0] != names[1] or filecmp.cmpfiles(a, b, names[0], shallow=False)[1:] != ([], []):
            return False
    return True


# Clocks


def processor_seconds():
    """User and system seconds of this process, and of those of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def processor_seconds_now():
    """User and system seconds of this process, and of those below it that run."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


class Stopwatch:
    """Seconds, and processor seconds, since it was made."""

    def __init__(self):
        self.start = time.perf_counter(), processor_seconds()

    def read(self):
        """Give both."""
        return time.perf_counter() - self.start[0], processor_seconds() - self.start[1]


def start_up():
    """Processor seconds that a worker takes to import what it needs for the default encoder."""
    watch = Stopwatch()
    code = "import braincorl.cohort.task as task; task.make_person_encoder(task.FitOptions())"
    subprocess.run([sys.executable, "-c", code], check=True)
    return watch.read()[1]


# What is measured


def nothing(_):
    """Do no work, so that what is left is the work of giving it out."""


@dataclass(frozen=True)
class Empty:
    """A task with nothing in it."""

    name: str


class KillAWorker:
    """Kills a worker process, as a queue or a want of memory would, when a quarter of the people are done."""

    def __init__(self):
        self.killed = None

    def __call__(self, done, n):
        """Look how far it is, as a callback for progress."""
        if self.killed is None and done >= n / 4:
            workers = [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
            workers[0].kill()
            self.killed = done


def run_people(options):
    """One process against workers, one of whom is killed."""
    root, people = make_people(options.folder, options.people, options.voxels, options.images)
    print(f"SIMULATION: {options.people} people x {options.voxels:,} voxels x {options.images} images\n", flush=True)
    chosen = FitOptions(features=root / "features.npz", encoder="in-context", n_context=options.images)
    warm = root / "warm-up"
    shutil.rmtree(warm, ignore_errors=True)
    fit_one(FitTask(people[0], chosen, warm))
    plain = root / "plain"
    shutil.rmtree(plain, ignore_errors=True)
    watch = Stopwatch()
    fit_plainly(people, chosen, plain)
    seconds, used = watch.read()
    rows = [["a loop of `fit_person`, no cohort", f"{seconds:.0f}", f"{used:.1f}", "", "", ""]]
    killing, curves, peaks = KillAWorker(), {}, []
    ways = {"1 worker, this process": (1, None), "2 workers": (2, None), "2 workers, one killed": (2, killing)}
    for name, (n, kill) in ways.items():
        folder = root / f"cohort-{len(rows)}"
        shutil.rmtree(folder, ignore_errors=True)
        watch, curve = Stopwatch(), []

        def progress(done, n_people, kill=kill, watch=watch, curve=curve):
            curve.append((done, time.perf_counter() - watch.start[0], processor_seconds_now() - watch.start[1]))
            if kill is not None:
                kill(done, n_people)

        found = fit_cohort(people, chosen, folder, Workers(n_workers=n, memory=n * LIMIT), progress=progress)
        seconds, used = watch.read()
        assert all(outcome.status == "fitted" for outcome in found), found
        steps = pd.DataFrame([outcome.processor_seconds for outcome in found])
        inside = steps.drop(columns="features").sum().sum() + len(found) * steps["features"].median()
        peak = max(outcome.peak_bytes for outcome in found)
        rows.append(
            [
                name,
                f"{seconds:.0f}",
                f"{used:.1f}",
                f"{inside:.1f}",
                f"{peak / 2**20:.0f}" + (f" of {LIMIT / 2**20:.0f}" if n > 1 else ""),
                "yes" if same_bytes(people, plain, folder) else "NO",
            ]
        )
        curves[name] = curve
        peaks.append(peak)
    header = ["way", "seconds", "processor seconds", "of them in people", "peak MiB of a worker", "same bytes"]
    print_table(header, rows)
    each, pause, size = empty_task(people[0], chosen, root)
    a_person = inside / len(people)
    print(f"- The worker was killed when {killing.killed} people were done.")
    print(f"- A worker's start (imports): {start_up():.1f} processor seconds, once.")
    print(f"- A task with nothing in it: {1e3 * each:.1f} ms of processor, {1e3 * pause:.1f} ms of a clock; that is")
    print(
        f"  {100 * each / a_person:.1f} % of a person's {a_person:.2f} processor seconds. {size} bytes on the network."
    )
    if options.output:
        facts = {"voxels": options.voxels, "images": options.images, "peak bytes": peaks, "task bytes": size}
        write_json(options.output, {"measured": "SIMULATION", **facts, "columns": CURVE, "curves": curves})


def empty_task(person, chosen, root):
    """Processor seconds and seconds that Dask takes for a task on two workers; bytes that it sends and gets."""
    with Workers(n_workers=2).start() as runner:
        list(runner.run(nothing, [Empty(f"first-{number}") for number in range(20)]))
        start = time.perf_counter(), processor_seconds_now()
        list(runner.run(nothing, [Empty(f"task-{number}") for number in range(EMPTY_TASKS)]))
        pause, used = time.perf_counter() - start[0], processor_seconds_now() - start[1]
    task = FitTask(person, chosen, root / "sizes")
    shutil.rmtree(root / "sizes", ignore_errors=True)
    size = len(pickle.dumps(task)) + len(pickle.dumps(fit_one(task)))
    return used / EMPTY_TASKS, pause / EMPTY_TASKS, size


def run_queue(options):
    """Ask queues whose submit commands start the job's script on this machine."""
    root, people = make_people(options.folder, 2, options.voxels, options.images)
    chosen = FitOptions(features=root / "features.npz", encoder="bayesian-ridge", n_context=options.images)
    path = os.environ["PATH"]
    plain = root / "plain-of-queues"
    shutil.rmtree(plain, ignore_errors=True)
    fit_plainly(people, chosen, plain)
    for queue in options.queues:
        submit, cancel, answer, own = FAKES[queue]
        fake, results = (root / f"{queue}-bin").absolute(), root / f"by-{queue}"
        for folder in (fake, results):
            shutil.rmtree(folder, ignore_errors=True)
        fake.mkdir()
        for name, text in ((submit, SUBMIT.format(folder=fake, answer=answer)), (cancel, CANCEL)):
            (fake / name).write_text(text)
            (fake / name).chmod(0o755)
        os.environ["PATH"] = f"{fake}{os.pathsep}{path}"
        config = {"cores": 1, "memory": "2GB", "walltime": "00:10:00", "jobs": 1, **own}
        watch = Stopwatch()
        workers = Workers(queue=queue, queue_config=config, folder=fake)
        found = fit_cohort(people, chosen, results, workers)
        good = sum(outcome.status == "fitted" for outcome in found)
        same = "the same bytes" if same_bytes(people, plain, results) else "OTHER BYTES"
        print(f"## {queue}: {good} of {len(people)} fitted in {watch.read()[0]:.0f} s, {same}, by this job:\n")
        script = (fake / "job.sh").read_text().replace(str(root.absolute()), "…").replace(sys.executable, "python")
        print(re.sub(r"tls://\S+", "tls://ADDRESS", script), flush=True)


def run_blocks(options):
    """Peak of memory, and processor seconds, of a prepared person as one task and in blocks of voxels."""
    print(
        f"SIMULATION: a person of {options.voxels:,} voxels x {options.images} images x {options.features} features\n"
    )
    root, (person,) = make_people(options.folder, 1, options.voxels, options.images, options.features)
    path = root / f"{person.name}.h5"
    if not path.is_file():
        files = person.files()
        prepare(open_subject(files.betas, files.trials, files.mask), path)
    prepared = Person(person.name, PersonFiles((path,)))
    chosen = FitOptions(features=root / "features.npz", encoder=options.encoder, n_context=options.images)
    shutil.rmtree(root / "in-blocks", ignore_errors=True)
    shutil.rmtree(root / "as-one", ignore_errors=True)
    one, task = FitTask(prepared, chosen, root / "as-one"), FitTask(prepared, chosen, root / "in-blocks")
    join = cut(task, options.voxels_per_task)
    ways = {
        "one task": (fit_one, [one]),
        f"{len(join.blocks)} blocks": (fit_block, join.blocks),
        "joining them": (join_blocks, [join]),
    }
    fork, rows = multiprocessing.get_context("fork"), []
    for name, (function, tasks) in ways.items():
        here, there = fork.Pipe()
        worker = fork.Process(target=tell_tasks, args=(function, tasks, there))
        worker.start()
        outcomes, before = here.recv()
        worker.join()
        assert all(outcome.status == "fitted" for outcome in outcomes), outcomes
        used = pd.DataFrame([outcome.processor_seconds for outcome in outcomes]).sum()
        steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in used.items())
        peak = max(outcome.peak_bytes for outcome in outcomes) - before
        rows.append([name, f"{peak / 2**20:.0f}", f"{used.sum():.1f}", steps])
        print(rows[-1], flush=True)
    print_table(["way", "peak MiB of a worker beyond the libraries", "processor seconds", "of them"], rows)
    print("the same bytes" if same_bytes([person], root / "as-one", root / "in-blocks") else "OTHER BYTES")


def tell_tasks(function, tasks, pipe):
    """Do tasks in this process; send what became of them, and the memory held before."""
    before = psutil.Process().memory_info().rss
    pipe.send(([function(task) for task in tasks], before))


def run_group(options):
    """Peak of memory, and seconds, of the group's products by numbers of people, each in a process of its own."""
    print(f"SIMULATION: people of {options.voxels:,} voxels x {options.images} images x {options.features} features\n")
    fork, rows = multiprocessing.get_context("fork"), []
    for n in options.people:
        root, people = make_people(options.folder, n, options.voxels, options.images, options.features)
        chosen = FitOptions(features=root / "features.npz", encoder="in-context", n_context=options.images)
        found = fit_cohort(people, chosen, root / "for-group", Workers(n_workers=1))
        assert all(outcome.status in ("fitted", "kept") for outcome in found), found
        shutil.rmtree(root / "for-group" / "group", ignore_errors=True)
        here, there = fork.Pipe()
        worker = fork.Process(target=tell_group, args=(root / "for-group", people, chosen, there))
        worker.start()
        seconds, used, peak = here.recv()
        worker.join()
        size = sum((root / "for-group" / person.name / "encoder.safetensors").stat().st_size for person in people)
        rows.append([n, f"{seconds:.1f}", f"{used:.1f}", f"{peak / 2**20:.0f}", f"{size / 2**20:.0f}"])
        print(rows[-1], flush=True)
    print_table(
        ["people", "seconds", "processor seconds", "peak MiB beyond the libraries", "MiB of all encoders"], rows
    )


def tell_group(folder, people, chosen, pipe):
    """Make a group in this process; send seconds, processor seconds, and the peak of memory beyond what was held."""
    before, watch, used = psutil.Process().memory_info().rss, time.perf_counter(), time.process_time()
    make_group(folder, people, chosen)
    pipe.send((time.perf_counter() - watch, time.process_time() - used, peak_memory() - before))


def run_profile(options):
    """Seconds of the steps of a person, and the share that is not the encoder."""
    root, people = make_people(options.folder, 1, options.voxels, options.images)
    print(f"SIMULATION: a person of {options.voxels:,} voxels x {options.images} images\n", flush=True)
    chosen = FitOptions(features=root / "features.npz", encoder="in-context", n_context=options.images)
    begun = start_up()
    fit_one(FitTask(people[0], chosen, root / "profile-warm-up"))
    shutil.rmtree(root / "profile-warm-up")
    found = []
    for _ in range(options.repeats):
        shutil.rmtree(root / "profile", ignore_errors=True)
        found.append(fit_one(FitTask(people[0], chosen, root / "profile")))
    used = pd.DataFrame([outcome.processor_seconds for outcome in found]).median()
    waited = pd.DataFrame([outcome.seconds for outcome in found]).median()
    rows = [["start-up, once a worker", f"{begun:.2f}", "", ""]]
    rows += [
        [name, f"{used[name]:.2f}", f"{waited[name]:.2f}", f"{100 * used[name] / used.sum():.0f}"]
        for name in used.index
    ]
    print_table(["step", "processor seconds", "seconds", "% of a person"], rows)
    print(f"not the encoder: {100 * (1 - used['encoder'] / used.sum()):.0f} % of {used.sum():.2f} processor seconds")
    alone = begun + used.sum()
    print(f"of one person alone, start-up counted: {100 * (1 - used['encoder'] / alone):.0f} % of {alone:.2f}")


def run_rates(options):
    """Seconds, memory and disk of one person by numbers of voxels and images, each in a process of its own."""
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes]
    fork = multiprocessing.get_context("fork")  # what is imported is there, and peaks of memory are each size's own
    rows = []
    for voxels, images in [(500, 50), *sizes]:
        root, people = make_people(options.folder, 1, voxels, images, options.features)
        chosen = FitOptions(features=root / "features.npz", encoder="in-context", n_context=images)
        shutil.rmtree(root / "rates", ignore_errors=True)
        if (voxels, images) == (500, 50):  # imports everything, and is not measured
            fit_one(FitTask(people[0], chosen, root / "rates"))
            continue
        here, there = fork.Pipe()
        worker = fork.Process(target=tell_fit, args=(FitTask(people[0], chosen, root / "rates"), there))
        worker.start()
        outcome, before = here.recv()
        worker.join()
        assert outcome.status == "fitted", outcome
        rows.append(
            {
                "voxels": voxels,
                "images": images,
                "features": options.features,
                **{f"{name} seconds": value for name, value in outcome.processor_seconds.items()},
                "peak bytes": outcome.peak_bytes - before,
                "read bytes": folder_bytes(root / "betas" / people[0].name),
                "written bytes": folder_bytes(root / "rates" / people[0].name),
            }
        )
        print(rows[-1], flush=True)
    content = {
        "measured": "SIMULATION; processor seconds of one thread",
        "start-up seconds": start_up(),
        "people": rows,
    }
    content["base bytes"] = before
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def tell_fit(task, pipe):
    """Fit in this process; send what became of it, and the memory held before."""
    before = psutil.Process().memory_info().rss
    pipe.send((fit_one(task), before))


def folder_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run_training(options):
    """Meta-training by one process, and by two that torchrun starts: one loss curve, and people per second."""
    options.folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "--local-addr=127.0.0.1"]
    recipe = options.folder / "recipe.toml"
    recipe.write_text(RECIPE.format(people=options.people, people_per_step=PEOPLE_PER_STEP))
    rows, curves = [], {}
    for n, start in {1: [sys.executable], 2: [sys.executable, *launcher]}.items():
        output = options.folder / f"trained-{n}"
        shutil.rmtree(output, ignore_errors=True)
        command = [*start, __file__, "steps", "--folder", str(output), "--recipe", str(recipe)]
        subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
        seconds, used = np.diff(json.loads((options.folder / f"trained-{n}.json").read_text()), axis=0).T
        # The first steps meet cold caches, and validation falls between some: quartiles of the others.
        low, middle, high = np.percentile(PEOPLE_PER_STEP / seconds[2:], [25, 50, 75])
        each = PEOPLE_PER_STEP / np.median(used[2:]) / n
        rows.append([n, f"{middle:.1f}", f"{low:.1f} to {high:.1f}", f"{each:.1f}"])
        curves[n] = pd.read_csv(output / "log.tsv", sep="\t")["network"]
    header = ["processes", "people per second, median step", "middle half of the steps", "people per processor second"]
    print_table(header, rows)
    apart = (curves[1] - curves[2]).abs().max()
    print(f"loss curves of {len(curves[1])} validations, largest difference {apart:.1e}, from {curves[1].tolist()}")


def run_steps(options):
    """Train, and note the clock and the processor time of this process after every step; for `training`."""
    times = []
    train(
        read_recipe(options.recipe),
        options.folder,
        n_workers=0,
        progress=lambda *_: times.append((time.perf_counter(), time.process_time())),
    )
    if os.environ.get("RANK", "0") == "0":
        options.folder.with_suffix(".json").write_text(json.dumps(times))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = {}
    for run in (run_people, run_queue, run_blocks, run_group, run_profile, run_rates, run_training, run_steps):
        name = run.__name__.removeprefix("run_")
        verb[name] = verbs.add_parser(name, help=run.__doc__)
        verb[name].add_argument("--folder", type=Path, required=True, help="of simulated people and results")
        verb[name].set_defaults(run=run)
    sizes = {"people": (5000, 100), "queue": (700, 100), "blocks": (40_000, 300), "group": (3000, 60)}
    for name, (voxels, images) in {**sizes, "profile": (20_000, 100)}.items():
        verb[name].add_argument("--voxels", type=int, default=voxels)
        verb[name].add_argument("--images", type=int, default=images)
    verb["people"].add_argument("--people", type=int, default=40)
    verb["people"].add_argument("--output", type=Path, help="JSON file for when each person was done")
    verb["queue"].add_argument("--queues", nargs="+", choices=sorted(FAKES), default=list(FAKES))
    verb["group"].add_argument("--people", type=int, nargs="+", default=[4, 16, 64])
    for name in ("blocks", "group"):
        verb[name].add_argument("--features", type=int, default=512)
    verb["blocks"].add_argument("--voxels-per-task", type=int, default=5000)
    verb["blocks"].add_argument("--encoder", choices=SEPARATE, default="bayesian-ridge")
    verb["profile"].add_argument("--repeats", type=int, default=5)
    verb["rates"].add_argument("--sizes", nargs="+", metavar="VOXELSxIMAGES", default=SIZES)
    verb["rates"].add_argument("--features", type=int, default=512)
    verb["rates"].add_argument("--output", type=Path, required=True, help="JSON file")
    verb["training"].add_argument("--people", type=int, default=256)
    verb["steps"].add_argument("--recipe", type=Path, required=True)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
