"""Where tasks run: in this process, on the cores of this machine, on a Dask scheduler, or through a batch queue.

Dask does the work of sharing: it starts workers again that died, and gives what they were doing to others. What a task
computes depends on none of this. Every worker does one task at a time with as many threads of linear algebra as the
task's options say, so that cores are not oversubscribed.

Dask's workers run whatever their scheduler sends. Connections that are opened here are encrypted and authenticated with
credentials of this run alone; a scheduler that is given by its address is as safe as whoever runs it has made it.
"""

import importlib.util
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import psutil

from braincorl import __version__
from braincorl.errors import BraincorlError, InputError, OutputError
from braincorl.storage.files import first_line, read_text
from braincorl.threads import limited_threads

logger = logging.getLogger(__name__)

QUEUES = ("slurm", "sge", "pbs", "lsf")
_CLASSES = {"slurm": "SLURMCluster", "sge": "SGECluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
INSTALL = "pip install braincorl[cohort]"
INSTALL_CLUSTER = "pip install braincorl[cluster]"

# Dask has workers return memory to the system at once. Every array is then mapped and cleared anew, page by page: a
# person of 5,000 voxels took twice the processor. These are the bounds that the C library otherwise comes to by itself.
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": 32 * 2**20, "MALLOC_TRIM_THRESHOLD_": 64 * 2**20}

# Tasks that are with the scheduler at a time: enough for hundreds of workers, and few beside a biobank's people.
IN_FLIGHT = 256
# Deaths of workers at one task before it is thought to be the task's fault.
DEATHS = 3


class Task(Protocol):
    """What can be run: anything that can be pickled and has a name."""

    @property
    def name(self) -> str:
        """To show."""
        ...


T = TypeVar("T", bound=Task)
R = TypeVar("R")


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    Attributes
    ----------
    n_workers
        Tasks at a time; 1 runs them in this process. By default as many as cores and memory allow. With a queue, the
        number of jobs' workers to ask for.
    threads
        Threads of linear algebra of each.
    memory
        Bytes that all workers on this machine may use; by default what the machine, or its container, has. A worker
        that uses more than its part is stopped and its task done again.
    scheduler
        Address of a Dask scheduler that runs already.
    queue
        "slurm", "sge", "pbs" or "lsf": ask that queue for workers.
    queue_config
        Arguments of dask-jobqueue's cluster: `cores`, `memory`, `queue`, `walltime`, …; `jobs` is the number of jobs.
    folder
        For spilled data and credentials; on a cluster one that all machines share.
    processes
        Whether local workers are processes of their own.

    Raises
    ------
    InputError
        If options contradict each other.
    """

    n_workers: int | None = None
    threads: int = 1
    memory: int | None = None
    scheduler: str | None = None
    queue: Literal["slurm", "sge", "pbs", "lsf"] | None = None
    queue_config: Mapping[str, Any] | None = None
    folder: Path | None = None
    processes: bool = True

    def __post_init__(self) -> None:
        if self.scheduler is not None and self.queue is not None:
            raise InputError("scheduler and cluster contradict each other: a scheduler that runs has its workers.")
        if (self.queue is None) != (self.queue_config is None):
            raise InputError("cluster and config belong together: the file says what a job may use.")
        if self.scheduler is not None and self.n_workers is not None:
            raise InputError("the scheduler has its own workers: leave the number of workers out.")
        for name in ("n_workers", "threads", "memory"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}, expected at least 1.")

    @property
    def is_local(self) -> bool:
        """Whether this machine does the work."""
        return self.scheduler is None and self.queue is None

    def sized(self, n_tasks: int, bytes_each: int) -> "Workers":
        """Choose the number of workers on this machine, where it was left open.

        Parameters
        ----------
        n_tasks
            More workers than tasks are of no use.
        bytes_each
            Memory that one task is thought to need.

        Returns
        -------
        Workers
        """
        if not self.is_local or self.n_workers is not None:
            return self
        by_cores = max(1, count_cores() // self.threads)
        by_memory = max(1, (self.memory or machine_memory()) // max(1, bytes_each))
        n = max(1, min(n_tasks, by_cores, by_memory))
        if n > 1 and not _installed("distributed"):
            logger.info("%d cores could work at a time, but one does: %s", n, INSTALL)
            n = 1
        elif by_memory < min(n_tasks, by_cores):
            logger.info("%d workers, since a person needs about %.1f GB", n, bytes_each / 1e9)
        return replace(self, n_workers=n)

    @contextmanager
    def start(self) -> Iterator["Runner"]:
        """Start the workers, and stop those that were started here in the end.

        Yields
        ------
        Runner

        Raises
        ------
        InputError
            If a package is missing, the queue's options are wrong, or the scheduler cannot be reached or runs another
            version.
        """
        if self.is_local and (self.n_workers or 1) == 1 and self.processes:
            yield InThisProcess()
            return
        _require("distributed", INSTALL)
        import dask
        from distributed import Client

        settings = {
            "distributed.scheduler.allowed-failures": DEATHS - 1,
            "distributed.scheduler.work-stealing": False,  # tasks are given out one by one anyway
            "distributed.comm.timeouts.connect": "30s",
        }
        environment = dict(dask.config.get("distributed.nanny.pre-spawn-environ")) | KEEPS_MEMORY
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = self.threads
        settings["distributed.nanny.pre-spawn-environ"] = environment
        with ExitStack() as stack:
            stack.enter_context(dask.config.set(settings))
            stack.enter_context(_dask_says_what_matters())
            if self.is_local and not self.processes:
                # OpenBLAS heeds one thread of Python alone. If that were a task's, the limit would end with that task,
                # while others compute; and the last to end would leave behind what it found, the limit.
                stack.enter_context(limited_threads(self.threads, torch=True))
            if self.scheduler is not None:
                client = stack.enter_context(self._connect())
            else:
                cluster = stack.enter_context(self._start_queue() if self.queue else self._start_here())
                client = stack.enter_context(Client(cluster, set_as_default=False))
            if not self.is_local:
                _check_versions(client, at_once=self.scheduler is not None)
            _tell_dashboard(client)
            yield OnDask(client)

    def _start_here(self) -> Any:
        from distributed import LocalCluster

        n = self.n_workers or 1
        return LocalCluster(
            n_workers=n,
            threads_per_worker=1,
            processes=self.processes,
            memory_limit=(self.memory or machine_memory()) // n if self.processes else 0,
            dashboard_address="127.0.0.1:8787" if _installed("bokeh") else None,
            local_directory=None if self.folder is None else str(self.folder),
            security=self._encrypted() if self.processes else None,
            silence_logs=logging.WARNING,
        )

    def _start_queue(self) -> Any:
        _require("dask_jobqueue", INSTALL_CLUSTER)
        import dask_jobqueue

        options = dict(self.queue_config or {})
        jobs = options.pop("jobs", None)
        cores = options.get("cores")
        if isinstance(cores, int) and "processes" not in options:
            options["processes"] = max(1, cores // self.threads)
        # One task at a time in each process, however many cores it has.
        options["worker_extra_args"] = [*(options.get("worker_extra_args") or []), "--nthreads", "1"]
        # A worker of a job goes by its own configuration, and not by that of this process.
        keeps = f'export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON="{KEEPS_MEMORY}"'
        options["job_script_prologue"] = [keeps, *(options.get("job_script_prologue") or [])]
        options.setdefault("security", self._encrypted())
        options.setdefault("scheduler_options", {})
        options["scheduler_options"].setdefault("dashboard_address", ":8787" if _installed("bokeh") else None)
        if self.folder is not None:
            options.setdefault("shared_temp_directory", str(self.folder))
        try:
            cluster = getattr(dask_jobqueue, _CLASSES[self.queue or ""])(**options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"the options of the queue {self.queue} are wrong: {_plainly(error)}") from error
        if jobs is not None:
            cluster.scale(jobs=jobs)
        else:
            cluster.scale(self.n_workers or 1)
        return cluster

    def _connect(self) -> Any:
        from distributed import Client

        try:
            return Client(self.scheduler, set_as_default=False, timeout=30)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError(
                f"no Dask scheduler answers at {self.scheduler} ({first_line(error)}): check the address."
            ) from error

    def _encrypted(self) -> bool | None:
        return True if _installed("cryptography") else None


class Runner(Protocol):
    """Runs tasks, and gives back what becomes of them in the order in which they end."""

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R | Exception]]:
        """Give (task, result), or (task, error) for one that never ended because its workers died."""
        ...


class InThisProcess:
    """Runs one task after the other, here."""

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R | Exception]]:
        """See `Runner`."""
        for task in tasks:
            yield task, function(task)


class OnDask:
    """Gives tasks to a Dask scheduler, so many at a time that it never holds all people of a biobank.

    Parameters
    ----------
    client
        Of the scheduler.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R | Exception]]:
        """See `Runner`."""
        from distributed import CancelledError, KilledWorker, as_completed

        waiting, running = deque(tasks), dict[str, tuple[T, Any]]()
        done = as_completed(loop=self._client.loop)

        def submit() -> None:
            task = waiting.popleft()
            future = self._client.submit(function, task, key=f"{function.__name__}-{task.name}-{os.urandom(4).hex()}")
            running[future.key] = (task, future)
            done.add(future)

        for _ in range(min(IN_FLIGHT, len(waiting))):
            submit()
        for future in done:
            task, _ = running.pop(future.key)
            if waiting:
                submit()
            try:
                yield task, future.result()
            except KilledWorker:
                yield task, _DiedError(f"{DEATHS} workers died at it, most likely for want of memory: give them more.")
            except CancelledError as error:
                raise OutputError(
                    "the connection to the Dask scheduler is lost: run again, what is done is kept."
                ) from error
            except BraincorlError as error:
                yield task, error


class _DiedError(BraincorlError):
    """Workers died at a task."""


def count_cores() -> int:
    """Cores that this process may use."""
    if _installed("dask"):
        from dask.system import CPU_COUNT  # knows of containers

        return int(CPU_COUNT)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory() -> int:
    """Bytes of memory that this process may use."""
    if _installed("distributed"):
        from distributed.system import MEMORY_LIMIT  # knows of containers

        return int(MEMORY_LIMIT)
    return int(psutil.virtual_memory().total)


def read_queue_config(path: Path, queue: str) -> dict[str, Any]:
    """Read what a job may use from a file in YAML: flat, or as dask-jobqueue's own `jobqueue.yaml`.

    Parameters
    ----------
    path
        The file.
    queue
        Which section of a `jobqueue.yaml`.

    Returns
    -------
    dict
        Arguments of dask-jobqueue's cluster, `jobs` among them.

    Raises
    ------
    InputError
        If it cannot be read, or holds something else.
    """
    _require("yaml", INSTALL_CLUSTER)
    import yaml

    try:
        content = yaml.safe_load(read_text(path, "YAML file"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {first_line(error)}.") from error
    if isinstance(content, dict) and isinstance(content.get("jobqueue"), dict):
        content = content["jobqueue"].get(queue)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f"{path} says nothing on {queue}: write cores, memory, queue, walltime and jobs, one a line.")
    options = {name.replace("-", "_"): value for name, value in content.items()}
    jobs = options.get("jobs", 1)
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise InputError(f"{path}: jobs is {jobs!r}, expected the number of jobs to ask for.")
    return options


def _check_versions(client: Any, *, at_once: bool) -> None:
    """See to it that there is a worker, and that workers run this version: other versions make other bytes."""
    if not client.scheduler_info()["workers"]:
        if at_once:
            logger.info("the scheduler has no workers yet: waiting for one")
        else:
            logger.info("waiting for the queue to start a first job")
        client.wait_for_workers(1)
    try:
        found = client.run(_version)
    except Exception as error:  # whatever a worker without braincorl raises
        raise InputError(
            f"the scheduler's workers cannot import braincorl ({first_line(error)}): install it."
        ) from error
    others = sorted({version for version in found.values() if version != __version__})
    if others:
        raise InputError(f"workers run braincorl {', '.join(others)}, but this is {__version__}: install the same.")


def _version() -> str:
    return __version__


def _tell_dashboard(client: Any) -> None:
    if _installed("bokeh") and client.dashboard_link:
        logger.info("dashboard: %s", client.dashboard_link)


@contextmanager
def _dask_says_what_matters() -> Iterator[None]:
    """Let Dask's log say that a worker died, in our words, and nothing else."""
    nanny = logging.getLogger("distributed.nanny")

    class Deaths(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "Restarting worker" in record.getMessage():  # whatever ended it: a signal, or memory beyond its limit
                logger.warning("a worker died: what it was doing is done again")

    above, handler, before = logging.getLogger("distributed"), Deaths(), nanny.propagate
    level, nanny.propagate = above.level, False
    handlers = nanny.handlers
    nanny.handlers = [handler]
    above.setLevel(logging.ERROR)
    nanny.setLevel(logging.WARNING)
    try:
        yield
    finally:
        above.setLevel(level)
        nanny.setLevel(logging.NOTSET)
        nanny.propagate, nanny.handlers = before, handlers


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _require(package: str, install: str) -> None:
    if not _installed(package):
        raise InputError(f"{package} is not installed, which shares work among workers: {install}.")


def _plainly(error: Exception) -> str:
    return first_line(error).split("__init__() ")[-1].rstrip(".") + "."
