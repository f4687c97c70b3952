"""A comparison of encoders on disk: accuracy against the number of context images, and what it was measured on.

dataset_description.json   BIDS derivative, with README.md
scores.tsv                 one row per encoder, number of images and draw: EV, r, seconds
regions.tsv                mean EV per region, with intervals over voxels and draws; where regions are known
config.json                whose responses, which images, noise ceiling
figure.png                 the curves
"""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from braincorl import __version__
from braincorl.errors import InputError
from braincorl.features import check_same_space
from braincorl.files import read_json, write_json
from braincorl.fits import Fit
from braincorl.fits.folder import write_description

logger = logging.getLogger(__name__)

COLUMNS = {"encoder", "n_context", "draw", "ev", "r", "seconds"}


@dataclass(frozen=True)
class Benchmark:
    """What a comparison of encoders found.

    Attributes
    ----------
    subject
        Whose responses.
    note
        What a reader must know of the images and responses.
    curve
        Of `scaling_curve`.
    n_voxels
        That the means are over.
    ceiling
        Mean noise ceiling of EV over voxels, or None.
    simulation
        Whether responses were simulated by `braincorl benchmark` itself.
    features_provenance
        Of the images' features.
    regions
        EV per encoder, number of images and region, of `braincorl.analysis.scaling.summarize_regions`, or None.
    inputs
        Files, seed and other options that it was made from, JSON-serialisable.
    """

    subject: str
    note: str
    curve: pd.DataFrame
    n_voxels: int
    ceiling: float | None = None
    simulation: bool = False
    features_provenance: dict[str, Any] = field(default_factory=dict)
    regions: pd.DataFrame | None = None
    inputs: dict[str, Any] = field(default_factory=dict)


def write_benchmark(folder: Path, benchmark: Benchmark) -> None:
    """Write tables and facts into an existing folder, usually one of `braincorl.result_folders.staged_directory`."""
    benchmark.curve.to_csv(folder / "scores.tsv", sep="\t", index=False, float_format="%.6g")
    if benchmark.regions is not None:
        benchmark.regions.to_csv(folder / "regions.tsv", sep="\t", index=False, float_format="%.6g", na_rep="n/a")
    facts = {name: value for name, value in asdict(benchmark).items() if name not in ("curve", "regions")}
    write_json(folder / "config.json", {"braincorl": __version__, **facts})
    write_description(folder, "Comparison of encoders", benchmark.note)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of ours, in which only an empty cell or n/a is missing: a region may be called NA."""
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=["", "n/a"])


def read_benchmark(path: str | Path) -> Benchmark:
    """Read a folder that `braincorl benchmark --output-dir` wrote.

    Raises
    ------
    InputError
        If it is not such a folder.
    """
    path = Path(path)
    tables = {name: path / f"{name}.tsv" for name in ("scores", "regions")}
    if not tables["scores"].is_file():
        raise InputError(f"{path} is no comparison of encoders: pass the --output-dir of braincorl benchmark.")
    if not (path / "config.json").is_file():
        raise InputError(
            f"{path} does not say whose responses it is of (no config.json): run braincorl benchmark again."
        )
    config = read_json(path / "config.json")
    config.pop("braincorl", None)
    for name, kind in {"subject": str, "note": str, "features_provenance": dict, "inputs": dict}.items():
        if not isinstance(config.get(name, kind()), kind):
            raise InputError(f"{path}, config.json: '{name}' is {config[name]!r}, expected a {kind.__name__}.")
    try:
        curve = read_table(tables["scores"])
        regions = read_table(tables["regions"]) if tables["regions"].is_file() else None
        benchmark = Benchmark(curve=curve, regions=regions, **config)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is no comparison of encoders ({error}): run braincorl benchmark again.") from error
    missing = sorted(COLUMNS - set(curve.columns))
    if missing or curve.empty:
        raise InputError(
            f"{tables['scores']} lacks {missing[0] if missing else 'rows'}: run braincorl benchmark again."
        )
    return benchmark


def find_benchmark(fit: Fit, path: Path | None = None) -> Benchmark | None:
    """Read the comparison of encoders that belongs to a fit, by default that in its folder; None if there is none.

    Raises
    ------
    InputError
        If it is of another person or feature space.
    """
    if path is None:
        path = fit.beside("benchmark")
        if path is None:
            return None
        if not (path / "config.json").is_file():  # as an earlier version wrote it: a report does without
            logger.warning(
                "%s is left out: it does not say whose responses it is of; run braincorl benchmark again", path
            )
            return None
    found = read_benchmark(path)
    if found.subject != fit.config["subject"] or (found.simulation and not fit.config.get("simulation")):
        raise InputError(
            f"{path} compares encoders on {found.subject}, but the fit is of {fit.config['subject']}: run braincorl "
            "benchmark on the data of the fit."
        )
    check_same_space(found.features_provenance, fit.config["features_provenance"], fit.title)
    return found
