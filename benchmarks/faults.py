"""Faults and hostile inputs in every verb: each must be met with the right result or with one clear line.

Each case is one command in a process of its own, a folder of its own, and one fault: the system refuses the k-th file
step, or all from there on; a signal arrives before a file step or a line of code, or at a random moment; the process is
killed; files may not grow, be opened, or memory be had; the disk is full; an input is damaged, is no file, or says what
it should not. A case is right if the result equals that of an undisturbed run; or if there is exactly one line on
standard error and exit status 2 (130 after a signal), earlier results and inputs are as they were, nothing is left
behind, and the same command given again makes the right result.

    uv run python benchmarks/faults.py --cases 1000
    uv run python benchmarks/faults.py --cases 200 --only kill --scenario train --show
    uv run python benchmarks/faults.py --case 1234

With `--output F.jsonl` a run that was stopped goes on where it was: cases that the file holds are not run again.

SIMULATION: people, pictures and networks are drawn. Linux; a full disk needs the right to mount.
"""

import argparse
import atexit
import fnmatch
import gc
import io
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MPLBACKEND="agg")

import numpy as np
from common import print_table
from fault_damage import DAMAGE, HOSTILE, craft
from fault_machine import ErrorAt, SignalAt, contents, lines, steps
from fault_scenarios import CHECKED, SCENARIOS, Scenario, bucket_server, make_smaller, write_inputs

import braincorl
from braincorl.cli.main import main as run_verb

PATIENCE = 240  # seconds, on a machine that others use, too
RIGHT, TOLD, ONE_LINE, KILLED, UNCHECKED = (
    "right result", "other data, and told", "one clear line", "killed, rerun clean", "other data (format unchecked)",
)  # fmt: skip
NOISE, UNCLEAR, LEFT, LOST, WRONG, HANG, STUCK, DIED = (
    "traceback or noise", "unclear words", "something left", "something lost", "silently wrong", "hang",
    "rerun not clean", "died",
)  # fmt: skip
GOOD, BAD = (RIGHT, ONE_LINE, KILLED, TOLD, UNCHECKED), (NOISE, UNCLEAR, LEFT, LOST, WRONG, HANG, STUCK, DIED)
# How often each class of faults is drawn.
CLASSES = {
    "error at a step": 22,
    "disk full from a step on": 8,
    "signal at a step": 14,
    "signal at a line": 8,
    "signal at a moment": 4,
    "two signals": 4,
    "kill at a step": 8,
    "kill at a moment": 3,
    "file size": 5,
    "open files": 3,
    "memory": 3,
    "full disk": 4,
    "full output": 1,
    "damage": 12,
    "hostile": 8,
    "crafted": 10,
}
HARM = {"damage", "hostile", "crafted"}  # of which there must be a file to do it to
WATCHED = r"/braincorl/(storage/\w+|cli/(\w+/)?\w+|features/(\w+/)?(journal|feature_files)"
WATCHED += r"|datasets/(\w+/)?prepar(ed|ing)|training/(loop|state)|(analysis|fits)/(\w+/)?(maps|page|folder))\.py$"


@dataclass
class Run:
    """What a command did."""

    status: int
    out: str
    err: list[str]
    seconds: float


@dataclass
class Reference:
    """An undisturbed run of a scenario."""

    before: dict[str, str]
    after: dict[str, str]
    steps: list[str]
    n_lines: int
    seconds: float
    err: list[str]
    out: str
    largest: int


@dataclass
class Outcome:
    """How a case ended."""

    case: int
    scenario: str
    fault: str
    detail: str
    outcome: str
    why: str = ""
    status: int | None = None
    err: list[str] = field(default_factory=list)


# One command


def run_command(
    arguments: Sequence[str],
    folder: Path,
    arrange: Callable[[], ExitStack] | None = None,
    *,
    after: float | None = None,
    number: int = signal.SIGKILL,
) -> Run:
    """Run a command line in a forked process.

    Parameters
    ----------
    arguments
        Of `braincorl`.
    folder
        To run in.
    arrange
        Called in the process, for limits, and gives what to enter around the command.
    after, number
        Send this signal after so many seconds.
    """
    start = time.monotonic()
    ends = [os.pipe() for _ in range(2)]
    blocked = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
            _be_the_program(arguments, folder, ends, arrange, blocked)
        finally:
            os._exit(77)
    for _, writing in ends:
        os.close(writing)
    texts = _listen([reading for reading, _ in ends], child, start, after, number)
    _, status = os.waitpid(child, 0)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # processes of its own that it forgot
    for reading, _ in ends:
        os.close(reading)
    out, err = (text.decode(errors="replace") for text in texts)
    return Run(os.waitstatus_to_exitcode(status), out, err.splitlines(), time.monotonic() - start)


def _listen(pipes: list[int], child: int, start: float, after: float | None, number: int) -> list[bytes]:
    """Read what the process says until it ends; stop it when its time is over."""
    texts = {pipe: b"" for pipe in pipes}
    open_ = set(pipes)
    while open_:
        now = time.monotonic() - start
        if after is not None and now >= after:
            os.kill(child, number)
            after = None
        if now > PATIENCE:
            os.killpg(child, signal.SIGKILL)
            break
        wait = 0.2 if after is None else max(0.0, min(0.2, after - now))
        for pipe in select.select(list(open_), [], [], wait)[0]:
            text = os.read(pipe, 65536)
            texts[pipe] += text
            if not text:
                open_.discard(pipe)
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            for pipe in open_:
                os.set_blocking(pipe, False)
                try:
                    while text := os.read(pipe, 65536):
                        texts[pipe] += text
                except BlockingIOError:
                    pass
            break
    return [texts[pipe] for pipe in pipes]


def _be_the_program(
    arguments: Sequence[str],
    folder: Path,
    ends: list[tuple[int, int]],
    arrange: Callable[[], ExitStack] | None,
    blocked: set[signal.Signals],
) -> None:
    """Do what the command line's process does, from its start to its end."""
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, (reading, writing) in enumerate(ends, start=1):
        os.dup2(writing, number)
        os.close(writing)
        os.close(reading)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    for number in blocked:
        signal.signal(number, signal.SIG_DFL)
    status = 1
    try:
        with (arrange or ExitStack)():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
            try:
                status = run_verb([*arguments])
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    gc.collect()
    sys.stdout.flush()
    os._exit(status)


# One case


def lay_out(scenario: Scenario, inputs: Path, folder: Path) -> None:
    """Copy what a scenario needs."""
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    pairs = [(name, folder / "in" / name) for name in scenario.inputs]
    pairs += [(source, folder / "out" / name) for name, source in scenario.earlier.items()]
    for source, target in pairs:
        if (inputs / source).is_dir():
            shutil.copytree(inputs / source, target)
        else:
            shutil.copy2(inputs / source, target)


def refer(scenario: Scenario, inputs: Path, folder: Path) -> Reference:
    """Run a scenario undisturbed, count its steps and lines, and ask whether it gives the same again."""
    found, kinds, n_lines = [], [], 0
    for number in range(2):
        here = folder / f"{number}"
        lay_out(scenario, inputs, here)
        before = contents(here / "out", here)
        logs = [folder / f"{what}{number}" for what in ("steps", "lines")]

        def arrange(number: int = number, here: Path = here, logs: list[Path] = logs) -> ExitStack:
            stack = ExitStack()
            if number == 1:
                by_step, by_line = (os.open(log, os.O_WRONLY | os.O_CREAT) for log in logs)
                stack.enter_context(steps(here, lambda _n, kind, path: os.write(by_step, f"{kind} {path}\n".encode())))
                stack.enter_context(lines(WATCHED, lambda _: os.write(by_line, b"\n")))
            return stack

        run = run_command([*scenario.arguments, *(["--quiet"] if number else [])], here, arrange)
        if run.status != 0:
            sys.exit(f"{scenario.name}: the undisturbed run fails: {run.err}")
        after = contents(here / "out", here)
        if found and after != found[0][1]:
            differ = [name for name in {*after, *found[0][1]} if after.get(name) != found[0][1].get(name)]
            sys.exit(f"{scenario.name}: two undisturbed runs differ in {differ}")
        found.append((before, after, run))
        if number == 1:
            kinds, n_lines = logs[0].read_text().splitlines(), logs[1].stat().st_size
    before, after, run = found[0]
    sizes = [path.stat().st_size for path in (folder / "0" / "out").rglob("*") if path.is_file()]
    shutil.rmtree(folder)
    steps_ = [line.replace(str(folder / "1"), "").replace("/private", "") for line in kinds]
    return Reference(before, after, steps_, n_lines, run.seconds, run.err, run.out, max(sizes, default=1000))


@dataclass
class Case:
    """A fault, drawn."""

    number: int
    scenario: Scenario
    fault: str
    detail: str = ""
    arrange: Callable[[], ExitStack] | None = None
    after: float | None = None
    signal: int = 0
    changed: Path | None = None
    mounted: bool = False
    step: str = ""


def draw(
    number: int, scenario: Scenario, fault: str, reference: Reference, folder: Path, rng: np.random.Generator
) -> Case:
    """Draw the details of a case, and lay its inputs out in a folder."""
    case = Case(number, scenario, fault)
    n_steps = len(reference.steps)
    k = int(rng.integers(n_steps)) if n_steps else 0
    any_signal = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[int(rng.integers(3))]
    if scenario.group:
        any_signal = signal.SIGINT
    if fault in ("error at a step", "disk full from a step on"):
        at = ErrorAt(k, int(rng.integers(60)), fault != "error at a step")
        case.arrange, case.step = _at_steps(folder, at), reference.steps[k] if n_steps else ""
        case.detail = f"{at} {case.step}"
    elif fault in ("signal at a step", "two signals", "kill at a step"):
        case.signal = signal.SIGKILL if "kill" in fault else any_signal
        twice = int(rng.integers(1, 6)) if "two" in fault else 0
        at = SignalAt(k, case.signal, twice, scenario.group and case.signal == signal.SIGINT)
        case.arrange, case.step = _at_steps(folder, at), reference.steps[k] if n_steps else ""
        case.detail = f"{at} {case.step}"
    elif fault == "signal at a line":
        case.signal, line = any_signal, int(rng.integers(reference.n_lines))
        case.arrange = _at_lines(line, any_signal)
        case.detail = f"line {line}, signal {int(any_signal)}"
    elif fault in ("signal at a moment", "kill at a moment"):
        case.signal = signal.SIGKILL if "kill" in fault else any_signal
        case.after = float(rng.random() * reference.seconds)
        case.detail = f"after {case.after:.3f} s, signal {int(case.signal)}"
    elif fault == "file size":
        limit = int(rng.integers(1.1 * reference.largest))
        case.arrange, case.detail = _limited(resource.RLIMIT_FSIZE, limit), f"{limit} bytes"
    elif fault == "open files":
        more = int(rng.integers(8))
        case.arrange, case.detail = _limited(resource.RLIMIT_NOFILE, more), f"{more} more files"
    elif fault == "memory":
        more = int(10 ** rng.uniform(4, 8.3))
        case.arrange, case.detail = _limited(resource.RLIMIT_AS, more), f"{more} more bytes"
    elif fault == "full disk":
        size = int(rng.integers(4096, 4096 + 2 * reference.largest))
        case.mounted = _mount(folder / "out", size)
        case.detail = f"{size} bytes" if case.mounted else "cannot mount here"
    elif fault == "full output":
        case.arrange = _full_output
    else:
        _harm(case, folder, rng)
    return case


def _harm(case: Case, folder: Path, rng: np.random.Generator) -> None:
    """Damage one of the inputs."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    read = [path for path in files if not path.name.startswith((".bidsignore", "README")) and path.suffix != ".html"]
    kinds = {"damage": DAMAGE, "hostile": HOSTILE}.get(case.fault)
    for _ in range(100):
        # Each name of a file as likely as any other, however many folders there are.
        case.changed = read[int(rng.integers(len(read)))]
        if "_statmap" in case.changed.name and rng.random() < 0.8:
            continue
        if kinds is not None:
            what = list(kinds)[int(rng.integers(len(kinds)))]
            if "pickle" in what and case.changed.suffix not in (".npz", ".pt", ".pth", ".safetensors"):
                continue
            if "than there are" in what and case.changed.suffix == ".h5" and "prepared" in case.changed.name:
                continue
            kinds[what](case.changed, rng)
            break
        what = "crafted"
        if craft(case.changed, rng):
            break
    case.detail = f"{case.changed.relative_to(folder)}: {what}"


def _at_steps(folder: Path, visit: Any) -> Callable[[], ExitStack]:
    def arrange() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(steps(folder, visit))
        return stack

    return arrange


def _at_lines(line: int, number: int) -> Callable[[], ExitStack]:
    def visit(count: int) -> None:
        if count == line:
            os.kill(os.getpid(), number)

    def arrange() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(lines(WATCHED, visit))
        return stack

    return arrange


def _limited(kind: int, value: int) -> Callable[[], ExitStack]:
    def arrange() -> ExitStack:
        limit = value
        if kind == resource.RLIMIT_NOFILE:
            used = {int(entry) for entry in os.listdir("/proc/self/fd")}  # noqa: PTH208
            limit = [number for number in range(2000) if number not in used][value]  # numbers below it may be opened
        elif kind == resource.RLIMIT_AS:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit += pages * resource.getpagesize()
        resource.setrlimit(kind, (limit, limit))
        return ExitStack()

    return arrange


def _full_output() -> ExitStack:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    return ExitStack()


def _mount(folder: Path, size: int) -> bool:
    """Put a small file system of its own under a folder, with what was there."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.mkdir()
    used = sum(4096 * (1 + path.stat().st_size // 4096) for path in aside.rglob("*"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={used + size}", "tmpfs", str(folder)]
    done = (
        shutil.which("mount") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )
    shutil.copytree(aside, folder, dirs_exist_ok=True)
    shutil.rmtree(aside)
    return done


def run_case(case: Case, reference: Reference, folder: Path) -> Outcome:
    """Run a case and judge it."""
    out, scenario = folder / "out", case.scenario
    harmed = case.changed is not None
    before, given = contents(out, folder), _bytes(folder / "in")
    quiet = [] if harmed else ["--quiet"]
    run = run_command([*scenario.arguments, *quiet], folder, case.arrange, after=case.after, number=case.signal)
    found = contents(out, folder)
    verdict, why = judge(case, reference, run, before, found, folder)
    if verdict in GOOD and _bytes(folder / "in") != given:
        verdict, why = LOST, "an input was changed"
    odd = sorted({entry.name for entry in folder.iterdir()} - {"in", "out"})
    if verdict in GOOD and odd:
        verdict, why = LEFT, f"outside: {odd}"
    if verdict in GOOD and not harmed:
        if case.mounted:
            subprocess.run(["mount", "-o", "remount,size=200m", str(out)], check=True)
        again = run_command([*scenario.arguments, *scenario.again, "--quiet"], folder)
        now = contents(out, folder)
        if again.status != 0 or again.err or now != reference.after:
            verdict, why = STUCK, f"{again.status} {again.err} {_difference(now, reference.after)}; before: {run.err}"
    return Outcome(case.number, scenario.name, case.fault, case.detail, verdict, why, run.status, run.err)


def judge(
    case: Case, reference: Reference, run: Run, before: dict[str, str], found: dict[str, str], folder: Path
) -> tuple[str, str]:
    """Class of what a command did under a fault."""
    if run.seconds > PATIENCE:
        return HANG, ""
    killed = case.signal == signal.SIGKILL
    if case.signal and run.status == -case.signal and found == before:
        return KILLED, "before it began"
    if run.status < 0 and not (killed and run.status == -signal.SIGKILL):
        return DIED, f"signal {-run.status}"
    if not killed or run.status >= 0:
        noise = _noise(case, run)
        if noise:
            return noise
    keeps = [*case.scenario.keeps]
    changed = "" if case.changed is None else str(case.changed.relative_to(folder / "out")) if (
        case.changed.is_relative_to(folder / "out")) else ""  # fmt: skip
    now, old, new = (_without(found_, keeps, changed) for found_ in (found, before, reference.after))
    if killed:
        now = _without(now, [".*", "*/.*/*", "*/.*", ".*/*"])
        old, new = (_without(part, [".*", "*/.*/*", "*/.*", ".*/*"]) for part in (old, new))
        if now in (old, new) or not set(old) - set(now):
            return KILLED, ""
        return KILLED, "aside"  # the rerun decides
    if run.status == 0:
        return _judge_result(case, reference, run, found, changed)
    if now in (old, new):
        return ONE_LINE, ""
    gone = {name: value for name, value in old.items() if now.get(name) not in (value, new.get(name))}
    if gone:
        return LOST, f"{gone}"
    if case.fault == "error at a step" and _removal_refused(case, [name for name in now if name not in old]):
        return ONE_LINE, "left, as its removal was refused"
    return LEFT, _difference(now, old)


def _judge_result(case: Case, reference: Reference, run: Run, found: dict[str, str], changed: str) -> tuple[str, str]:
    same = _without(found, [], changed) == _without(reference.after, [], changed)
    if case.scenario.name == "data check" and case.changed is not None:
        same = run.out == reference.out
    if same:
        return RIGHT, ""
    why = _difference(found, reference.after)
    more = [name for name in found if name not in reference.after]
    if case.fault == "error at a step" and _removal_refused(case, more):
        return RIGHT, "left, as its removal was refused"
    if case.changed is None:
        return (LEFT if set(reference.after.items()) <= set(found.items()) else WRONG), why
    if set(run.err) - set(reference.err):
        return TOLD, why
    checked = (case.changed.name.endswith(CHECKED) and case.fault == "damage") or case.fault == "hostile"
    return (WRONG if checked else UNCHECKED), why


def _removal_refused(case: Case, left: Sequence[str]) -> bool:
    """Whether the fault was that a temporary name could not be removed, so that it stays until the next run."""
    hidden = all(re.search(r"(^|/)\.", name) for name in left)
    return hidden and case.step.startswith(("remove ", "list ", "read "))


def _noise(case: Case, run: Run) -> tuple[str, str] | None:
    """Find fault with what was said."""
    verb = case.scenario.arguments[0]
    wanted = {0} | ({130} if case.signal else {2})
    if case.fault == "full output":
        wanted = {2}
    if run.status not in wanted:
        return NOISE, f"status {run.status}"
    own = [line for line in run.err if line.startswith("braincorl")]
    if len(own) < len(run.err):
        return NOISE, "library noise"
    if run.status == 0:
        return None if case.changed is not None or not run.err else (NOISE, "lines of a run that went well")
    if not run.err or not run.err[-1].startswith(f"braincorl {verb}: "):
        return NOISE, "no line of the verb's own"
    if case.changed is None and len(run.err) != 1:
        return NOISE, f"{len(run.err)} lines"
    last = run.err[-1]
    if re.search(r"Traceback|\bErrno\b|a file or stream|<[a-z_.]+ object|None\b", last):
        return UNCLEAR, last
    if case.changed is None and re.search(r"damage|truncated|new copy|not a readable|altered|incomplete", last):
        return UNCLEAR, f"a fault of the system called one of the file: {last}"
    return None


def _without(found: dict[str, str], patterns: Sequence[str], changed: str = "") -> dict[str, str]:
    return {
        name: value
        for name, value in found.items()
        if name != changed and not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }


def _difference(found: dict[str, str], expected: dict[str, str]) -> str:
    names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    return ", ".join(f"{name} ({expected.get(name, '-')[:30]} -> {found.get(name, '-')[:80]})" for name in names[:4])


def _bytes(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every input; cheaper than its content, and as telling."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*") if not path.is_dir()
    }


# All cases


def import_everything() -> None:
    """Import what verbs import when they run, once, so that every case forks from it."""
    for module in walk_packages(braincorl.__path__, "braincorl."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


def _report_modules(inputs: Path, folder: Path) -> None:
    """Import what the scenarios import beyond that."""
    for scenario in SCENARIOS:
        here = folder / "modules"
        lay_out(scenario, inputs, here)
        list_ = folder / "modules.txt"

        def arrange(list_: Path = list_) -> ExitStack:
            stack = ExitStack()
            stack.callback(lambda: list_.write_text("\n".join(sys.modules)))
            return stack

        run_command(scenario.arguments, here, arrange)
        for name in list_.read_text().split("\n"):
            if name not in sys.modules and not name.startswith("torch._dynamo"):
                try:
                    import_module(name)
                except Exception:  # made by a library at run time, and no module
                    continue
        shutil.rmtree(here)


def read_outcomes(options: argparse.Namespace) -> dict[int, Outcome]:
    """Cases that an earlier run with these options has written; a line that was cut short is left out."""
    path, found = Path(options.output or ""), {}
    if not options.output or not path.exists():
        return {}
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, TypeError):
            outcome = Outcome(**json.loads(line))
            scenario, fault, _ = choose(outcome.case, options)
            if (scenario.name, fault) == (outcome.scenario, outcome.fault):
                found[outcome.case] = outcome
    return found


def run_cases(
    numbers: Sequence[int], options: argparse.Namespace, references: dict[str, Reference], work: Path
) -> list[Outcome]:
    """Run cases, several at a time, each in a process of its own."""
    earlier = {} if options.case else read_outcomes(options)
    waiting, running = [number for number in numbers if number not in earlier], {}
    done = [earlier[number] for number in numbers if number in earlier]
    sink = open(options.output, "a", encoding="utf-8") if options.output else None  # noqa: PTH123, SIM115
    while waiting or running:
        while waiting and len(running) < options.jobs:
            number = waiting.pop(0)
            child = os.fork()
            if child == 0:
                try:
                    _one_case(number, options, references, work)
                finally:
                    os._exit(0)
            running[child] = number
        child, _ = os.waitpid(-1, 0)
        number = running.pop(child)
        told = work / f"{number}.json"
        outcome = Outcome(**json.loads(told.read_text())) if told.is_file() else Outcome(number, "?", "?", "", "script")
        told.unlink(missing_ok=True)
        done.append(outcome)
        if sink is not None:
            sink.write(json.dumps(asdict(outcome)) + "\n")
            sink.flush()
        if options.show and outcome.outcome not in GOOD:
            print(json.dumps(asdict(outcome)), flush=True)
        if sys.stderr.isatty():
            print(f"\r{len(done)} of {len(numbers)}", end="", file=sys.stderr)
    return done


def choose(number: int, options: argparse.Namespace) -> tuple[Scenario, str, np.random.Generator]:
    """Scenario and class of a case, by its number alone."""
    rng = np.random.default_rng([options.seed, number])
    scenarios = [s for s in SCENARIOS if options.scenario is None or options.scenario in s.name]
    classes = {name: n for name, n in CLASSES.items() if options.only is None or options.only in name}
    turn, place = divmod(number, len(scenarios))
    scenario = scenarios[place]
    if scenario.slow and turn % 4 and len(scenarios) > 1:
        scenario = scenarios[(place + turn) % len(scenarios)]
    if not scenario.inputs and not scenario.earlier and set(classes) - HARM:
        classes = {name: n for name, n in classes.items() if name not in HARM}
    weights = np.array(list(classes.values()), float)
    fault = list(classes)[int(rng.choice(len(weights), p=weights / weights.sum()))]
    return scenario, fault, rng


def _one_case(number: int, options: argparse.Namespace, references: dict[str, Reference], work: Path) -> None:
    scenario, fault, rng = choose(number, options)
    folder = work / f"case{number}"
    outcome = None
    try:
        lay_out(scenario, work / "inputs", folder)
        case = draw(number, scenario, fault, references[scenario.name], folder, rng)
        outcome = run_case(case, references[scenario.name], folder)
    except Exception:
        outcome = Outcome(number, scenario.name, fault, "", "script", traceback.format_exc())
    finally:
        subprocess.run(
            ["umount", str(folder / "out")], capture_output=True, check=False
        ) if fault == "full disk" else None
        (work / f"{number}.json").write_text(json.dumps(asdict(outcome)))
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def summarize(outcomes: Sequence[Outcome]) -> None:
    """Print counts of outcomes by class of faults, and by scenario."""
    names = [name for name in (*GOOD, *BAD, "script") if any(o.outcome == name for o in outcomes)]
    for title, key in (("fault", lambda o: o.fault), ("command", lambda o: o.scenario)):
        groups = list(dict.fromkeys([*CLASSES] if title == "fault" else [s.name for s in SCENARIOS]))
        counts = Counter((key(o), o.outcome) for o in outcomes)
        rows = [[group, *(counts[group, name] or "" for name in names)] for group in groups]
        total = ["all", *(sum(counts[group, name] for group in groups) for name in names)]
        print_table([title, *names], [*(row for row in rows if any(row[1:])), total])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, metavar="N")
    parser.add_argument("--case", type=int, nargs="+", metavar="NUMBER", help="these cases only, told in full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="WORD", help="classes of faults with this word in their name")
    parser.add_argument("--scenario", metavar="WORD", help="commands with this word in their name")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="to work in (default: a temporary one)")
    parser.add_argument("--output", metavar="JSONL", help="also write a line per case")
    parser.add_argument("--show", action="store_true", help="print each case that was not met well")
    parser.add_argument("--keep", action="store_true", help="keep the folders of all cases")
    options = parser.parse_args()
    work, exits = Path(tempfile.mkdtemp(prefix="faults-", dir=options.folder)).resolve(), ExitStack()
    try:
        import torch

        torch.set_num_threads(1)
        url = exits.enter_context(bucket_server())
        SCENARIOS[:] = [replace(s, arguments=[part.format(server=url) for part in s.arguments]) for s in SCENARIOS]
        import_everything()
        make_smaller()
        gc.freeze()
        (work / "inputs").mkdir()
        write_inputs(
            work / "inputs", lambda arguments, folder: _run_whole([a.format(server=url) for a in arguments], folder)
        )
        _report_modules(work / "inputs", work)
        todo = options.case or sorted(set(range(options.cases)) - set(read_outcomes(options)))
        chosen = {choose(n, options)[0].name for n in todo}
        references = {s.name: refer(s, work / "inputs", work / "reference") for s in SCENARIOS if s.name in chosen}
        gc.collect()
        gc.freeze()  # forked processes share these objects, and need not copy them to look for garbage
        start = time.monotonic()
        if options.case:
            options.show = True
        outcomes = run_cases(options.case or range(options.cases), options, references, work)
        if options.case:
            for outcome in outcomes:
                print(json.dumps(asdict(outcome), indent=1))
        summarize(outcomes)
        bad = sum(o.outcome not in GOOD for o in outcomes)
        print(f"{len(outcomes)} cases in {time.monotonic() - start:.0f} s, {bad} not met well (seed {options.seed})")
        sys.exit(1 if bad else 0)
    finally:
        exits.close()
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)


def _run_whole(arguments: Sequence[str], folder: Path) -> None:
    run = run_command([*arguments, "--quiet"], folder)
    if run.status != 0:
        sys.exit(f"{' '.join(arguments)}: {run.err}")


if __name__ == "__main__":
    main()
