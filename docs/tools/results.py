"""Make a table of the results page again: run its command, and write what it prints with machine and date.

    uv run python docs/tools/results.py demo closed_form_speed

Tables that no command of a minute or two makes are written by hand, with the command that made them.
"""

import argparse
import platform
import shlex
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import pandas as pd
import psutil

FOLDER = Path(__file__).resolve().parent.parent / "results"
COMMANDS = {
    "demo": "uv run braincorl demo --output-dir demo",
    "closed_form_speed": "uv run python benchmarks/closed_form_speed.py",
    "localiser": "uv run python benchmarks/localiser.py --draws 2",
    "actions": "uv run python benchmarks/actions_fmri.py",
    "spoilt_trials": "uv run python benchmarks/spoilt_trials.py --draws 2",
    "shared_weights": "uv run python benchmarks/shared_weights.py --draws 5",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(COMMANDS))
    for name in parser.parse_args().names:
        command = COMMANDS[name]
        text = demo_table() if name == "demo" else printed(command)
        head = f"*{date.today():%-d %B %Y}, {machine()}:*\n\n```text\n{command}\n```\n\n"
        (FOLDER / f"{name}.md").write_text(head + text.strip() + "\n", encoding="utf-8")


def machine() -> str:
    """Processor and memory, in words."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{psutil.cpu_count()} cores of {model}, {psutil.virtual_memory().total / 2**30:.0f} GiB of memory"


def printed(command: str) -> str:
    """Give what a command prints."""
    words = shlex.split(command)[2:]  # in this environment, not in one that uv would make
    done = subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True, text=True)
    return done.stdout


def demo_table() -> str:
    """Mean ± spread over draws of the demo's scores."""
    from braincorl.cli.main import main as braincorl

    with tempfile.TemporaryDirectory() as scratch:
        braincorl(["demo", "--output-dir", f"{scratch}/demo", "--quiet"])
        scores = pd.read_csv(Path(scratch, "demo", "scores.tsv"), sep="\t")
    lengths = sorted(scores["n_context"].unique())
    lines = [f"| EV against the truth, by context images | {' | '.join(map(str, lengths))} |", "|---" * 5 + "|"]
    for name, rows in scores.groupby("encoder", sort=False):
        cells = [rows.loc[rows["n_context"] == n, "score"] for n in lengths]
        shown = " | ".join(f"{point(cell.mean())} ± {point(cell.std())}" for cell in cells)
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)


def point(value: float) -> str:
    """Three digits without the zero before the point."""
    return f"{value:.3f}".replace("0.", ".", 1)


if __name__ == "__main__":
    main()
