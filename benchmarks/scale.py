"""What larger cohorts would take, by arithmetic from the rates that `cohort.py` measured, and the plot of it.

    uv run python benchmarks/scale.py

Reads docs/results/rates.json and, where it is there, people.json beside it; writes docs/results/scale.md and
docs/scale.png. A step's processor seconds, and the bytes of a worker, are a + b voxels + c images + d voxels x images,
with coefficients of at least 0 that fit the measured sizes with the least relative error.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from braincorl.analysis.figures import new_figure, own_style, save_figure

DOCS = Path(__file__).resolve().parent.parent / "docs"
STEPS = ("features", "responses", "encoder", "saving")
FEATURES = 512
TASK_BYTES = 1054  # of `cohort.py people --people 8 --voxels 1000`
COLOURS = {1: "#1b6ca8", 2: "#c8553d", 8: "#7a7a7a", 64: "#b0b0b0"}


@dataclass(frozen=True)
class Cohort:
    """Whom one would like to fit; `assumed` is what no data set says."""

    name: str
    people: int
    voxels: int
    images: int
    workers: int
    assumed: str


COHORTS = (
    Cohort("NSD, whole brain: 8 people", 8, 226_000, 10_000, 8, "none"),
    Cohort("MOSAIC: 93 people", 93, 91_282, 2_000, 64, "images: people have from hundreds to 10,000"),
    Cohort("a biobank: 100,000 people of 5 minutes", 100_000, 20_000, 75, 256, "voxels, and images: one in 4 seconds"),
)
BLOCK = 5000  # voxels of a task, where a person is cut
COORDINATES = 64  # of a voxel, when a memory's voxels are compared
MOST_COMPARED, ITEMS = 2**20, 4096  # as `braincorl.priors` has them


def terms(voxels, images):
    """Give what the cost of a size is a sum of (n_sizes, 4)."""
    V, N = np.asarray(voxels, dtype=float), np.asarray(images, dtype=float)
    return np.stack([np.ones_like(V), V, N, V * N], axis=-1)


class Rates:
    """Rates of one person, from the file of measurements."""

    def __init__(self, measured):
        self.rows = measured["people"]
        self.start_up, self.base = measured["start-up seconds"], measured["base bytes"]
        self.voxels = np.array([row["voxels"] for row in self.rows])
        self.images = np.array([row["images"] for row in self.rows])
        self._of = {name: self._fit(self.measured(name)) for name in (*self._steps(), "peak bytes", "written bytes")}

    def _steps(self):
        return [f"{step} seconds" for step in STEPS]

    def measured(self, name):
        """Measured values of a column (n_sizes,)."""
        return np.array([row[name] for row in self.rows])

    def measured_seconds(self):
        """Measured processor seconds of all steps (n_sizes,)."""
        return sum(self.measured(name) for name in self._steps())

    def _fit(self, values):
        weighted = terms(self.voxels, self.images) / values[:, None]
        scale = np.linalg.norm(weighted, axis=0)
        return nnls(weighted / scale, np.ones(len(values)))[0] / scale

    def of(self, name, voxels, images):
        """Say what a size costs, by the rates."""
        return terms(voxels, images) @ self._of[name]

    def seconds(self, voxels, images):
        """Processor seconds of one person."""
        return sum(self.of(name, voxels, images) for name in self._steps())

    def worker_bytes(self, voxels, images):
        """Memory of a worker at its peak."""
        return self.base + self.of("peak bytes", voxels, images)

    def misfit(self, name=None):
        """Largest factor between what was measured and what the rates say."""
        measured = self.measured_seconds() if name is None else self.measured(name)
        said = self.seconds(self.voxels, self.images) if name is None else self.of(name, self.voxels, self.images)
        return float(np.exp(np.abs(np.log(measured / said)).max()))


def duration(seconds):
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def size(n_bytes):
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= one:
            return f"{n_bytes / one:.3g} {unit}"
    return f"{n_bytes / 1e3:.3g} kB"


def measured_table(rates):
    lines = [
        "| voxels | images | processor s | of them encoder | peak of a worker | written |",
        "|---|---|---|---|---|---|",
    ]
    for row, seconds in zip(rates.rows, rates.measured_seconds(), strict=True):
        share = 100 * row["encoder seconds"] / seconds
        lines.append(
            f"| {row['voxels']:,} | {row['images']:,} | {seconds:.2f} | {share:.0f} % | "
            f"{size(rates.base + row['peak bytes'])} | {size(row['written bytes'])} |"
        )
    return lines


def paper_table(rates, task_bytes):
    """Lay out the cohorts on paper."""
    rows = {
        "voxels x images": lambda c: f"{c.voxels:,} x {c.images:,}",
        "of these sizes assumed": lambda c: c.assumed,
        "betas to read, all people": lambda c: size(4 * c.people * c.voxels * c.images),
        "results to write, all people": lambda c: size(c.people * rates.of("written bytes", c.voxels, c.images)),
        "files": lambda c: f"{25 * c.people:,}",
        "processor time of a person": lambda c: duration(rates.seconds(c.voxels, c.images)),
        "of it not the encoder": lambda c: (
            f"{100 * (1 - rates.of('encoder seconds', c.voxels, c.images) / rates.seconds(c.voxels, c.images)):.0f} %"
        ),
        "memory of a worker": lambda c: size(rates.worker_bytes(c.voxels, c.images)),
        f"the same, in blocks of {BLOCK:,} voxels": lambda c: size(rates.worker_bytes(min(c.voxels, BLOCK), c.images)),
        "one worker": lambda c: duration(rates.start_up + c.people * rates.seconds(c.voxels, c.images)),
        "many workers": lambda c: f"{duration(everybody(rates, c))} with {c.workers}",
        "memory of them": lambda c: size(c.workers * rates.worker_bytes(c.voxels, c.images)),
        "betas read, a second": lambda c: (
            f"{size(4 * c.people * c.voxels * c.images / everybody(rates, c))} from the file system"
        ),
        "through the scheduler": lambda c: size(c.people * task_bytes),
        "memory of `group`": lambda c: size(group_bytes(rates, c)),
        "encoders that it reads, four times": lambda c: size(4 * c.people * 4 * c.voxels * (FEATURES + 1)),
    }
    lines = ["| | " + " | ".join(cohort.name for cohort in COHORTS) + " |", "|---|" + "---|" * len(COHORTS)]
    lines += [f"| {name} | " + " | ".join(text(cohort) for cohort in COHORTS) + " |" for name, text in rows.items()]
    return lines


def group_bytes(rates, cohort):
    """Memory of a group: a fit, read, remembered and summed up in double precision; what is compared; the items."""
    fit = 4 * cohort.voxels * (FEATURES + 1)
    compared = min(cohort.people * cohort.voxels, MOST_COMPARED) * 4 * COORDINATES
    return rates.base + 8 * fit + 3 * compared + 8 * ITEMS * FEATURES


def everybody(rates, cohort):
    """Seconds of a cohort with its workers; the last round may be one of few."""
    rounds = -(-cohort.people // cohort.workers)
    return rates.start_up + rounds * rates.seconds(cohort.voxels, cohort.images)


@own_style
def draw(rates, people):
    """Seconds above, memory below; against people, voxels, images. Dots are measured, dashes are arithmetic."""
    figure = new_figure(10.5, 6.0)
    axes = figure.subplots(2, 3)
    if people:
        draw_people(axes[:, 0], rates, people)
    else:
        draw_people_on_paper(axes[:, 0], rates)
    for column, (name, own, other, furthest) in enumerate(
        (("voxels", rates.voxels, rates.images, 226_000), ("images", rates.images, rates.voxels, 30_000)), start=1
    ):
        fixed = 100 if name == "voxels" else 2000
        chosen = other == fixed
        ours = np.sort(own[chosen])
        grid = np.geomspace(ours[-1], furthest, 50)
        for row, values, said in (
            (0, rates.measured_seconds(), rates.seconds),
            (1, (rates.base + rates.measured("peak bytes")) / 1e9, lambda *at: rates.worker_bytes(*at) / 1e9),
        ):
            pair = (grid, fixed) if name == "voxels" else (fixed, grid)
            pair = [np.broadcast_to(part, grid.shape) for part in pair]
            order = np.argsort(own[chosen])
            ax = axes[row, column]
            ax.plot(ours, values[chosen][order], "o-", color=COLOURS[1], label="measured")
            ax.plot(grid, said(*pair), "--", color=COLOURS[1], label="extrapolated")
            ax.set(xscale="log", yscale="log" if row == 0 else "linear", xlabel=f"{name} of a person")
        axes[0, column].set_title(f"{fixed:,} {'images' if name == 'voxels' else 'voxels'}, one worker")
        axes[0, column].legend(frameon=False)
    axes[0, 0].set_ylabel("processor seconds, per worker")
    axes[1, 0].set_ylabel("memory of all workers, GB")
    axes[1, 1].set_ylabel("memory of the worker, GB")
    figure.suptitle("A cohort's time and memory (simulated people; dashes are extrapolated)")
    figure.tight_layout()
    return figure


def draw_people_on_paper(axes, rates):
    """Draw people of 5,000 voxels and 100 images by numbers of workers, all of it arithmetic."""
    grid = np.geomspace(8, 1000, 30)
    for n, colour in COLOURS.items():
        many = grid[grid >= n]
        axes[0].plot(
            many, rates.start_up + rates.seconds(5000, 100) * many / n, "--", color=colour, label=f"{n} workers"
        )
        axes[1].plot(many, np.full(len(many), n * rates.worker_bytes(5000, 100) / 1e9), "--", color=colour)
    axes[0].set_title("5,000 voxels, 100 images, extrapolated")
    axes[0].legend(frameon=False)
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="people")


def draw_people(axes, rates, people):
    """Draw cohorts of the same size of a person, by 1 and 2 workers as measured, by more as calculated."""
    ways = {1: people["curves"]["1 worker, this process"], 2: people["curves"]["2 workers"]}
    slope = 0.0
    for n, curve in ways.items():
        done, _, used = np.array(curve).T
        slope = np.polyfit(done, used, 1)[0]  # a person's processor seconds; the later way is the one with Dask
        axes[0].plot(done, used / n, color=COLOURS[n], label=f"{n} worker{'s' * (n > 1)}, measured")
        peak = n * (people["peak bytes"][n - 1]) / 1e9
        axes[1].plot(done, np.full(len(done), peak), color=COLOURS[n])
    grid = np.geomspace(8, 1000, 30)
    for n in (8, 64):
        many = grid[grid >= n]
        axes[0].plot(many, rates.start_up + slope * many / n, "--", color=COLOURS[n], label=f"{n}, extrapolated")
        axes[1].plot(many, np.full(len(many), n * people["peak bytes"][1] / 1e9), "--", color=COLOURS[n])
    axes[0].set_title(f"{people['voxels']:,} voxels, {people['images']} images")
    axes[0].legend(frameon=False)
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="people")


def main():
    rates = Rates(json.loads((DOCS / "results" / "rates.json").read_text(encoding="utf-8")))
    path = DOCS / "results" / "people.json"
    people = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    print(f"seconds fit within a factor of {rates.misfit():.2f}, memory {rates.misfit('peak bytes'):.2f}")
    text = [
        "*Measured, on simulated people:*",
        "",
        *measured_table(rates),
        "",
        "*On paper, from these rates:*",
        "",
        *paper_table(rates, people["task bytes"] if people else TASK_BYTES),
        "",
        f"The formula is within a factor of {rates.misfit():.1f} of every measured time, and of "
        f"{rates.misfit('peak bytes'):.1f} of every measured memory beyond the libraries' {size(rates.base)}.",
    ]
    (DOCS / "results" / "scale.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    save_figure(draw(rates, people), DOCS / "scale.png")


if __name__ == "__main__":
    main()
