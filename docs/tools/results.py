"""Make tables of the results page again: run their commands, and write what these print with machine and date.

    uv run python docs/tools/results.py demo localiser

The speed tables (`closed_form_speed`, `reference_speed`) want a machine that does nothing else. `few_shot` and
`bold5000` take some twenty minutes; `--scores FILE` keeps what is scored, goes on from it, and serves both.
"""

import argparse
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "docs" / "results"
FEW_SHOT = (
    "uv run python benchmarks/few_shot.py run scores.jsonl\nuv run python benchmarks/few_shot.py table scores.jsonl"
)
COMMANDS = {
    "demo": "uv run braincorl demo --output-dir demo",
    "few_shot": FEW_SHOT,
    "bold5000": FEW_SHOT,
    "closed_form_speed": "uv run python benchmarks/closed_form_speed.py",
    "reference_speed": "uv run python benchmarks/reference_speed.py speed",
    "localiser": "uv run python benchmarks/localiser.py --draws 2",
    "actions": "uv run python benchmarks/actions_fmri.py",
    "spoilt_trials": "uv run python benchmarks/spoilt_trials.py --draws 2",
    "shared_weights": "uv run python benchmarks/shared_weights.py --draws 5",
}
# What the scripts call the encoders, and the page.
ENCODERS = {
    "ridge": "ridge",
    "Bayesian ridge": "Bayesian ridge",
    "in-context": "in-context, no memory",
    "group prior": "with earlier people's voxels",
}
SETS = {
    "object2vec-alexnet20": ("object2vec, AlexNet features", "and their regions known"),
    "object2vec-word2vec30": ("object2vec, word2vec features", "and their regions known"),
    "actions": ("actions", "and their places known"),
    "bold5000": ("images", "and regions known"),
}
RULES = {
    "attention": "attention to the other person's voxels",
    "nearest centroid of ridge weights": "nearest centroid to ridge weights",
    "the commonest region for all": "the commonest region",
}
PACKAGES = {
    "braincorl Bayesian ridge": "Bayesian ridge",
    "braincorl ridge": "ridge",
    "scikit-learn RidgeCV": "scikit-learn `RidgeCV`, per-target \N{GREEK SMALL LETTER ALPHA}",
    "himalaya RidgeCV": "himalaya `RidgeCV`",
    "himalaya KernelRidgeCV": "himalaya `KernelRidgeCV`",
}
CLOSED_FORMS = {
    "RidgeEncoder, leave-one-out": "`RidgeEncoder`, leave-one-out",
    "RidgeEncoder, 5 folds": "`RidgeEncoder`, 5 folds",
    "BayesianRidgeEncoder": "`BayesianRidgeEncoder`",
}
Rows = list[list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=sorted(COMMANDS))
    parser.add_argument("--scores", type=Path, help="file of few_shot.py run, to go on from")
    options = parser.parse_args()
    for name in options.names:
        text = demo_table() if name == "demo" else SHAPES[name](printed(name, options.scores))
        head = f"*{date.today():%-d %B %Y}, {machine()}:*\n\n```text\n{COMMANDS[name]}\n```\n\n"
        (FOLDER / f"{name}.md").write_text(head + text.strip() + "\n", encoding="utf-8")


def machine() -> str:
    """Processor and memory, in words."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{psutil.cpu_count()} cores of {model}, {psutil.virtual_memory().total / 2**30:.0f} GiB of memory"


def printed(name: str, scores: Path | None) -> str:
    """Give what the last of a table's commands prints."""
    said = ""
    with tempfile.TemporaryDirectory() as scratch:
        for command in COMMANDS[name].splitlines():
            words = shlex.split(command)[3:]  # in this environment, not in one that uv would make
            words = [str(scores or Path(scratch, word)) if word == "scores.jsonl" else word for word in words]
            done = subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            said = done.stdout
    return said


def tables(text: str) -> dict[str, Rows]:
    """Rows of cells of each Markdown table, its header first, by the line that stands above it."""
    found: dict[str, Rows] = {}
    title = ""
    for line in text.splitlines():
        if not line.startswith("|"):
            title = line or title
        elif set(line) - set("|-: "):
            found.setdefault(title, []).append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def written(header: list[str], rows: Rows) -> str:
    """Write a Markdown table."""
    first, *lines = [f"| {' | '.join(map(short, line))} |\n" for line in (header, *rows)]
    return "".join([first, "|---" * len(header) + "|\n", *lines])


def short(cell: str) -> str:
    """Write a cell's numbers without the zero before the point."""
    return " ".join(word.replace("0.", ".", 1) if word.lstrip("-").startswith("0.") else word for word in cell.split())


def few_shot(text: str, sets: tuple[str, ...] = tuple(SETS)[:3]) -> str:
    """Give means over people and draws; the spread stands on the page."""
    found = {title.split(",")[0]: rows for title, rows in tables(text).items()}
    shown = []
    for name in sets:
        (header, *rows), (title, anatomy) = found[name], SETS[name]
        names = {**ENCODERS, "group prior, anatomy": anatomy}
        if name == "bold5000":
            names["group prior"] = "with the other person's voxels"
        lengths = header[1:-1] if name == "bold5000" else [*header[1:-2], f"{header[-2]} images"]
        means = [[names[row[0]], *(cell.split()[0] for cell in row[1:-1])] for row in rows]
        shown.append(written([title, *lengths], means))
    return "\n".join(shown)


def localiser(text: str) -> str:
    """Give means of both people."""
    ((header, *rows),) = tables(text).values()
    shares = pd.DataFrame(rows, columns=header).set_index(["rule", "of"]).astype(float).groupby("rule").mean()
    return written(["images", *header[2:]], [[RULES[n], *(f"{v:.3f}" for v in shares.loc[n])] for n in RULES])


def spoilt_trials(text: str) -> str:
    """Put both lengths into one cell."""
    ((_, *rows),) = tables(text).values()
    cells = {(name, trials): f"{short(a)} / {short(b)}" for name, trials, a, b in rows}
    lines = [[ENCODERS[n], cells[n, "1 in 20 spoilt"], cells[n, "as measured"]] for n in reversed(ENCODERS)]
    return written(["EV, 20 / 40 images", "spoilt", "as measured"], lines)


def actions(text: str) -> str:
    """Give the table of r over people; 60 clips have one draw."""
    header, *rows = next(rows for title, rows in tables(text).items() if title.startswith("Mean r over"))
    cells = {row[0]: [*row[1:-1], row[-1].split()[0]] for row in rows}
    return written(["context clips", *header[1:]], [[shown, *cells[name]] for name, shown in PACKAGES.items()])


def as_printed(text: str) -> str:
    """Give the only table as it is."""
    ((header, *rows),) = tables(text).values()
    return written(header, rows)


def closed_form_speed(text: str) -> str:
    """Give ratios to the faster himalaya."""
    ((_, *rows),) = tables(text).values()
    ratios = {row[0]: row[-2:] for row in rows}
    return written(["", "time, ratio to himalaya", "memory, ratio"], [[s, *ratios[n]] for n, s in CLOSED_FORMS.items()])


def reference_speed(text: str) -> str:
    """Give the rows of 100 images."""
    ((_, *rows),) = tables(text).values()
    lines = [[row[1], row[3], row[9], row[7]] for row in rows if row[0] == "100"]
    return written(["", "ms per voxel", "speed-up", "share of the matrix rate in that precision"], lines)


SHAPES: Mapping[str, Callable[[str], str]] = {
    "few_shot": few_shot,
    "bold5000": lambda text: few_shot(text, ("bold5000",)),
    "localiser": localiser,
    "spoilt_trials": spoilt_trials,
    "actions": actions,
    "closed_form_speed": closed_form_speed,
    "reference_speed": reference_speed,
    "shared_weights": as_printed,
}


def demo_table() -> str:
    """Mean ± spread over draws of the demo's scores."""
    from braincorl.cli.main import main as braincorl

    with tempfile.TemporaryDirectory() as scratch:
        braincorl(["demo", "--output-dir", f"{scratch}/demo", "--quiet"])
        scores = pd.read_csv(Path(scratch, "demo", "scores.tsv"), sep="\t")
    lengths = sorted(scores["n_context"].unique())
    rows = []
    for name, drawn in scores.groupby("encoder", sort=False):
        cells = [drawn.loc[drawn["n_context"] == n, "score"] for n in lengths]
        rows.append([str(name), *(f"{cell.mean():.3f} ± {cell.std():.3f}" for cell in cells)])
    return written(["EV against the truth, by context images", *map(str, lengths)], rows)


if __name__ == "__main__":
    main()
