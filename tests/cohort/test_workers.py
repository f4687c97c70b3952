import gc
import multiprocessing
import os
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import dask
import pytest
import torch
from distributed import LocalCluster
from test_running import same_files
from threadpoolctl import threadpool_info, threadpool_limits

from braincorl.cli.main import main
from braincorl.cohort import BidsTree, FitOptions, Workers, fit_cohort, people_of_tree, read_queue_config, workers
from braincorl.cohort.workers import InThisProcess
from braincorl.errors import InputError
from braincorl.threads import limited_threads


def test_workers_are_as_many_as_cores_memory_and_people_allow(monkeypatch):
    monkeypatch.setattr(workers, "count_cores", lambda: 8)
    monkeypatch.setattr(workers, "machine_memory", lambda: 16 * 10**9)
    assert Workers().sized(100, 10**9).n_workers == 8
    assert Workers(threads=4).sized(100, 10**9).n_workers == 2
    assert Workers().sized(3, 10**9).n_workers == 3
    assert Workers().sized(100, 5 * 10**9).n_workers == 3
    assert Workers(memory=10**9).sized(100, 5 * 10**9).n_workers == 1
    assert Workers(n_workers=5).sized(1, 10**12).n_workers == 5


def test_one_worker_is_this_process_and_needs_no_dask(monkeypatch):
    monkeypatch.setattr(workers, "_installed", lambda package: False)
    monkeypatch.setattr(workers, "count_cores", lambda: 8)
    with Workers().sized(100, 1).start() as runner:
        assert isinstance(runner, InThisProcess)
    with pytest.raises(InputError, match=r"pip install braincorl\[cohort\]"), Workers(n_workers=2).start():
        pass


MISTAKES = {
    "two places": ({"scheduler": "tcp://a:1", "queue": "slurm", "queue_config": {}}, "contradict each other"),
    "no configuration": ({"queue": "slurm"}, "belong together"),
    "workers of a scheduler": ({"scheduler": "tcp://a:1", "n_workers": 2}, "has its own workers"),
    "no worker": ({"n_workers": 0}, "n_workers is 0"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_contradictions_are_named(case):
    options, message = MISTAKES[case]
    with pytest.raises(InputError, match=message):
        Workers(**options)


def test_a_queue_s_options_are_read_flat_and_as_dask_writes_them(tmp_path):
    path = tmp_path / "queue.yaml"
    for text in (
        "cores: 4\njob-extra-directives: [--qos=low]\n",
        "jobqueue:\n  slurm: {cores: 4, job-extra-directives: [--qos=low]}\n",
    ):
        path.write_text(text)
        assert read_queue_config(path, "slurm") == {"cores": 4, "job_extra_directives": ["--qos=low"]}
    for text, message in (
        ("cores: [", "is no YAML"),
        ("cores", "says nothing on sge"),
        ("jobs: many", "jobs is 'many'"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_queue_config(path, "sge")


@pytest.mark.filterwarnings("ignore")
def test_unknown_options_of_a_queue_are_named():
    chosen = Workers(queue="slurm", queue_config={"cores": 1, "memory": "1GB", "colour": "red"})
    with pytest.raises(InputError, match=r"options of the queue slurm are wrong: .*colour"), chosen.start():
        pass


@dataclass
class Turn:
    name: str


FIRST_LEFT, SECOND_ENTERED = threading.Event(), threading.Event()


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def take_turn(turn):
    """The first ends while the second computes; how many threads each had at its end."""
    with limited_threads(1, torch=True):
        if turn.name == "first":
            assert SECOND_ENTERED.wait(30)
            return blas_threads(), torch.get_num_threads()
        SECOND_ENTERED.set()
        assert FIRST_LEFT.wait(30)
        return blas_threads(), torch.get_num_threads()


@pytest.mark.filterwarnings("ignore")  # of Dask's threads
def test_tasks_in_threads_keep_one_limit_and_leave_none_behind():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with threadpool_limits(2, user_api="blas"):
            with Workers(n_workers=2, processes=False).start() as runner:
                found = {}
                for turn, threads in runner.run(take_turn, [Turn("first"), Turn("second")]):
                    found[turn.name] = threads
                    FIRST_LEFT.set()
            assert found == {"first": ({1}, 1), "second": ({1}, 1)}
            assert (blas_threads(), torch.get_num_threads()) == ({2}, 3)
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class DeadlyTree(BidsTree):
    """A tree that kills the first worker process that opens one person's files, in the middle of its task."""

    deaths: Path = Path()

    def files(self, name):
        died = self.deaths / name
        if multiprocessing.parent_process():
            (self.deaths / f"environment-{name}").write_text(str(os.environ.get("MALLOC_TRIM_THRESHOLD_")))
        if name == "sub-02" and multiprocessing.parent_process() and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().files(name)


@pytest.fixture
def one_by_one(tree, tmp_path):
    """Three people fitted in this process."""
    options = FitOptions(features=tree.features, n_context=20, encoder="bayesian-ridge")
    fit_cohort(people_of_tree(BidsTree(tree.root)), options, tmp_path / "here", Workers(n_workers=1))
    return options, tmp_path / "here"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Dask's threads
def test_what_a_killed_worker_did_is_done_again_to_the_same_bytes(tree, one_by_one, tmp_path, caplog):
    options, here = one_by_one
    people = people_of_tree(DeadlyTree(tree.root, deaths=tmp_path))
    workers = Workers(n_workers=2, memory=4 * 10**9)
    found = fit_cohort(people, options, tmp_path / "there", workers)
    assert (tmp_path / "sub-02").exists()
    assert "a worker died: what it was doing is done again" in caplog.text
    assert [outcome.status for outcome in found] == ["fitted"] * 3
    assert same_files(here, tmp_path / "there")
    # With Dask's own choice, computing takes twice the processor.
    assert {path.read_text() for path in tmp_path.glob("environment-*")} == {str(64 * 2**20)}


@pytest.mark.filterwarnings("ignore")  # of Dask's threads
def test_a_scheduler_that_runs_is_used_and_left_running(tree, one_by_one, tmp_path):
    _, here = one_by_one
    words = ["--features", tree.features, "--n-context", 20, "--encoder", "bayesian-ridge", "--quiet"]
    arguments = ["cohort", tree.root, *words, "--output-dir", tmp_path / "there", "--scheduler"]
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        assert main([*map(str, arguments), cluster.scheduler_address]) == 0
        assert len(cluster.scheduler_info["workers"]) == 1
        assert not cluster.scheduler.clients.keys() - {"fire-and-forget"}  # ours has said goodbye
        assert cluster.scheduler.transition_counter > 0  # and had tasks done there
    assert all(same_files(here / name, tmp_path / "there" / name) for name in ("sub-01", "sub-02", "sub-03"))


SBATCH = """#!/bin/sh
job="$(dirname "$0")/job"
cp "$1" "$job.sh"  # as queues do: the script is removed at once
setsid sh "$job.sh" >"$job.log" 2>&1 &
echo "Submitted batch job $!"
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Dask's threads
def test_a_queue_is_asked_for_a_job_that_works(tree, tmp_path, monkeypatch):
    """`sbatch` of a queue that starts every job at once, here; its workers have two threads, this process has one."""
    queue = tmp_path / "queue"
    queue.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", '#!/bin/sh\nkill -- "-$1"\necho "$1" >"$0.called"\n')):
        (queue / name).write_text(text)
        (queue / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{queue}{os.pathsep}{os.environ['PATH']}")
    config = tmp_path / "slurm.yaml"
    config.write_text('cores: 2\nmemory: 4GB\nwalltime: "00:10:00"\nqueue: short\njobs: 1\n')
    words = ["--features", tree.features, "--n-context", 20, "--encoder", "bayesian-ridge", "--quiet", "-w", queue]
    words += ["--threads", 2, "--cluster", "slurm", "--config", config, "--output-dir", tmp_path / "there"]
    assert main([*map(str, ["cohort", tree.root, *words])]) == 0
    assert all((tmp_path / "there" / name / "encoder.safetensors").exists() for name in ("sub-01", "sub-02", "sub-03"))
    script = (queue / "job.sh").read_text()
    assert "#SBATCH -p short" in script
    assert "#SBATCH --cpus-per-task=2" in script
    assert "#SBATCH -t 00:10:00" in script
    assert "--nthreads 1" in script
    assert "tls://" in script
    (setting,) = re.findall(r'export (DASK_\w+)="(.*)"', script)
    read = dask.config.collect_env(dict([setting]))["distributed"]["nanny"]["pre_spawn_environ"]
    assert read == workers.KEEPS_MEMORY
    assert (queue / "scancel.called").exists()  # no job outlives the run
    gc.collect()
    assert not list(queue.glob(".dask-jobqueue*"))  # nor do its keys
