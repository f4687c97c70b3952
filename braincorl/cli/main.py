"""`braincorl VERB`: finds the verb, and turns mistakes into one line and exit status 2."""

import argparse
import contextlib
import difflib
import io
import itertools
import logging
import os
import re
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Never, Self, TextIO

from braincorl import __version__
from braincorl.errors import BraincorlError, InputError
from braincorl.storage.files import one_line

# In the order of a first use. A verb's module is imported only for its own command: scientific libraries take seconds.
VERBS = {
    "demo": "simulate a person, compare the encoders, write maps and a report",
    "embed": "turn images, or words, into features",
    "fit": "fit a voxelwise encoder to one person's responses",
    "predict": "predict a fitted person's responses to images",
    "score": "score a fit on images that it has not seen",
    "identify": "tell which image was seen, of some candidates, from measured responses",
    "compare": "compare two fits of one person on images that neither has seen",
    "report": "write one HTML file on a fit: accuracy, maps, regions, provenance",
    "data": "fetch and check public data sets, and prepare people of them",
    "query": "ask in words, or with example images, what a fit's voxels respond to",
    "benchmark": "compare encoders by accuracy and time, on simulated people or on your own data",
    "prior": "learn what voxels are like from the fits of earlier people",
    "cohort": "fit many people on any number of workers, and what they give as a group",
    "select": "choose the images to show the next person, given a group prior",
    "train": "meta-train an in-context network after a recipe",
    "convert": "convert the authors' checkpoint of the published network",
    "export": "write a fit for those who do not use braincorl: NumPy, himalaya, BERG",
}
# The room of a verb's module; the others are beside this one.
ROOMS = {
    "fits": ("fit", "predict", "score", "identify", "compare", "report", "query", "export"),
    "people": ("data", "prior", "cohort", "select"),
    "networks": ("embed", "train", "convert"),
}

LONGEST_LINE = 2000  # a message of a library can hold a whole file
# Ctrl-C, the word of schedulers and of `kill`, and a terminal that was closed or a connection that broke.
INTERRUPTS = ("SIGINT", "SIGTERM", "SIGHUP")
OUTPUT = "standard output"
PATIENCE = 5.0  # seconds that cleaning up may take before another interrupt is obeyed


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and that loses nothing of what was typed."""

    _typed: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as the base class does, but refuse a list given in two parts, of which it would keep the last."""
        self._typed = list(args or ())
        names = [word.split("=")[0] for word in self._before_end()]
        for action in self._actions:
            given = sum(name in action.option_strings for name in names)
            if given > 1 and action.nargs in ("+", "*"):
                name = action.option_strings[0]
                self.error(f"argument {name}: it is given {given} times; write all its values after one {name}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> Never:
        """Print one line and exit with status 2."""
        if message.startswith("the following arguments are required"):  # it may be there, but misspelt
            message += self._misspelt()
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def _before_end(self) -> list[str]:
        return list(itertools.takewhile(lambda word: word != "--", self._typed))

    def _misspelt(self) -> str:
        known = list(self._option_string_actions)
        for word in self._before_end():
            name = word.split("=")[0]
            if re.match(r"[-\u2010-\u2015]+[A-Za-z]", name) and name not in known:
                plain = "--" + name.lstrip("-\u2010\u2011\u2012\u2013\u2014\u2015")
                near = [option for option in known if option.startswith(plain)]
                near = near or difflib.get_close_matches(plain, known, 1)
                return f"; {name} is unknown" + (f", did you mean {near[0]}?" if near else "")
        return ""


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """Parser of the whole command line, with the options of one verb (of none, for the list of verbs)."""
    parser = OneLineParser(
        prog="braincorl",
        description="Voxelwise encoders of visual cortex for a new person, from few images.",
        epilog="BRAINCORL_MEMORY=SIZE (1 GiB) bounds the memory of temporaries; it changes no result.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"braincorl {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=OneLineParser)
    for name, summary in VERBS.items():
        if name == verb:
            import_module(_module(name)).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _module(verb: str) -> str:
    room = next((f"{room}." for room, verbs in ROOMS.items() if verb in verbs), "")
    return f"braincorl.cli.{room}{verb}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Parameters
    ----------
    argv
        Arguments after the program's name; by default those of the process.

    Returns
    -------
    int
        Exit status: 0 done, 1 done for some people of several, 2 a mistake of the user's, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments = _verb_first(arguments)
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    name = f"braincorl {verb}" if verb in VERBS else "braincorl"
    return run_program(arguments, name, lambda: _read_options(arguments, verb))


def run_program(arguments: Sequence[str], name: str, read_options: Callable[[], argparse.Namespace]) -> int:
    """Run what options say, and turn whatever ends it early into one line and a status.

    Parameters
    ----------
    arguments
        After the program's name.
    name
        What messages begin with.
    read_options
        Gives options with `run`, a function of them, and `quiet`.

    Returns
    -------
    int
        Exit status, as `main` says.
    """
    _open_standard_streams()
    with _Interrupts() as interrupts, _warnings_are_lines():
        try:
            status = _run(arguments, name, read_options, interrupts)
            interrupts.come_too_late()
            return status
        except KeyboardInterrupt:
            return _fail(f"{name}: interrupted; {interrupts.kept}", 130)


def _run(
    arguments: Sequence[str], name: str, read_options: Callable[[], argparse.Namespace], interrupts: "_Interrupts"
) -> int:
    """Run, and turn whatever ends it early into one line and a status."""
    try:
        interrupts.obey()
        if isinstance(sys.stdout, io.TextIOWrapper):  # a name that is no text must not end a run that went well
            sys.stdout.reconfigure(errors="backslashreplace")
        _check_text(arguments)
        options = read_options()
        for option, value in vars(options).items():
            setattr(options, option, _at_home(value))
        options.command = shlex.join([name.split()[0], *arguments])
        interrupts.kept = getattr(options, "interrupted", interrupts.kept)
        _show_log(quiet=options.quiet)
        status = options.run(options)
        _flush_output()
    except BraincorlError as error:
        return _fail(f"{name}: {_one_line(error)}", 2)
    except MemoryError:
        return _fail(f"{name}: out of memory: use a smaller mask or fewer images.", 2)
    except BrokenPipeError:  # whoever read our output has gone, as in `braincorl ... | head`
        _discard_output()
        return 1
    except OSError as error:  # no permission, a name too long, a disk that fails: the system's answer, not a bug
        if error.filename is None and error.strerror is None:
            raise
        if error.filename in (None, OUTPUT):  # a stream, most often standard output on a full disk
            _discard_output()
        return _fail(f"{name}: {error.filename or 'a file or stream'} cannot be used: {error.strerror}.", 2)
    return status or 0


def _read_options(arguments: Sequence[str], verb: str | None) -> argparse.Namespace:
    options, unknown = build_parser(verb).parse_known_args(arguments)
    rest = getattr(options, "rest", None)
    if rest is not None and not any(word.startswith("-") for word in unknown):
        # The parser takes a verb's words from one place only; here they may come before options, after them, or both.
        kind = options.rest_type
        setattr(options, rest, [*getattr(options, rest), *map(kind, unknown)])
        return options
    if unknown:  # argparse would name the program here, not the verb whose --help would help
        raise InputError(f"unrecognized arguments: {' '.join(unknown)} (see braincorl {options.verb} --help)")
    return options


def _verb_first(arguments: list[str]) -> list[str]:
    """Put `--quiet` and other options without a value behind the verb, and let `help VERB` be `VERB --help`."""
    if arguments[:1] == ["help"]:
        return [*(word for word in arguments[1:] if word in VERBS), "--help"]
    place = next((n for n, word in enumerate(arguments) if not word.startswith("-")), 0)
    if place and arguments[place] in VERBS and not {"--help", "-h", "--version"} & set(arguments[:place]):
        return [arguments[place], *arguments[:place], *arguments[place + 1 :]]
    return arguments


def _at_home(value: Any) -> Any:
    """Read `~` in paths as the user's home, as shells do only where it begins a word (not in `--output-dir=~/fit`)."""
    if isinstance(value, list):
        return [_at_home(part) for part in value]
    if isinstance(value, dict):
        return {name: _at_home(part) for name, part in value.items()}
    if isinstance(value, Path) and value.parts[:1] == ("~",) and not value.exists():
        try:
            return value.expanduser()
        except RuntimeError:  # nobody has a home here
            return value
    return value


def _open_standard_streams() -> None:
    """Let what is said to a stream that was closed (`>&-`) go nowhere.

    Otherwise the next file that is opened would take the stream's number, and get what libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, so this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse file names that are no text: results name their inputs, in JSON, tables and pages."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{argument!r} is no valid UTF-8: rename that file, or pass a link to it.") from error


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, OUTPUT) from error  # a BrokenPipeError stays one


def _discard_output() -> None:
    """Let what is still to be printed go nowhere, so that the interpreter does not fail at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(text: object) -> str:
    """Lay a text on one line, with what would command the terminal spelled out: names may come from strangers."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in one_line(text))
    return line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…"


class _OneLineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"braincorl: {_one_line(record.getMessage())}"


class _SaidOnce(logging.Filter):
    """Lets a note that several steps of a run have through once."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        note = record.getMessage()
        if record.levelno != logging.WARNING or note not in self._said:
            self._said.add(note)
            return True
        return False


class _Interrupts:
    """Lets every interrupt end a run in one way, and none, pressed twice, end the cleaning up after it.

    Attributes
    ----------
    kept
        What is true of the results of a run that was interrupted.
    """

    def __init__(self) -> None:
        self.kept = "nothing is half-written."
        self._ready, self._waits, self._last = False, False, -PATIENCE
        self._before: dict[int, Any] = {}
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in INTERRUPTS if hasattr(signal, name)):
                if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._arrive)
            self._unraisable, sys.unraisablehook = sys.unraisablehook, self._swallowed
        return self

    def obey(self) -> None:
        """Interrupt from now on whatever runs, or at once if an interrupt came before."""
        self._ready = True
        if self._waits:
            raise KeyboardInterrupt

    def come_too_late(self) -> None:
        """Interrupt nothing any more: the work is done, and its results are there."""
        self._ready = False

    def _arrive(self, _number: int, _frame: FrameType | None) -> None:
        if not self._ready:
            self._waits = True
        elif time.monotonic() - self._last >= PATIENCE:
            self._last = time.monotonic()
            raise KeyboardInterrupt

    def _swallowed(self, lost: Any) -> None:
        """Let an interrupt come again that an object's destruction has swallowed."""
        if not issubclass(lost.exc_type, KeyboardInterrupt) or not hasattr(signal, "setitimer"):
            self._unraisable(lost)
            return
        self._last = -PATIENCE
        self._before.setdefault(signal.SIGALRM, signal.signal(signal.SIGALRM, self._arrive))
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ready = False
        if self._before:
            sys.unraisablehook = self._unraisable
        if hasattr(signal, "SIGALRM") and signal.SIGALRM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)  # or it would end the process once the handler is gone
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _warnings_are_lines() -> Iterator[None]:
    """Put what libraries warn of into the log, in one line each, without their source code."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
        line: str | None = None,
    ) -> None:  # fmt: skip
        parts = filename.replace(os.sep, "/").split("/site-packages/")
        source = parts[1].split("/")[0].removesuffix(".py") if len(parts) == 2 else "braincorl"
        logging.getLogger("braincorl").warning("%s warns: %s", source, message)

    before, warnings.showwarning = warnings.showwarning, show
    try:
        yield
    finally:
        warnings.showwarning = before


def _fail(line: str, status: int) -> int:
    # In one piece, and no more where that fails: a log on a full disk, say.
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    return status


def _show_log(*, quiet: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLineFormatter())
    handler.addFilter(_SaidOnce())
    logger = logging.getLogger("braincorl")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
