import subprocess
import sys
from dataclasses import dataclass

import pytest

from braincorl.cli.main import main
from braincorl.features import FeatureTable, save_features


@dataclass
class Result:
    status: int
    out: str
    err: str


@pytest.fixture
def braincorl(capsys):
    """Run the command line in this process."""

    def run(*arguments):
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture
def braincorl_process():
    """Run the command line in a process of its own."""

    def run(*arguments, **options):
        command = [sys.executable, "-m", "braincorl", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@dataclass
class Inputs:
    """A simulated person's files."""

    folder: object
    features: object
    betas: object
    trials: object
    mask: object
    rois: object

    def arguments(self, **changes):
        """Options that name the files; a change to None drops an option."""
        names = {name: getattr(self, name) for name in ("features", "betas", "trials", "mask")} | changes
        return [part for name, value in names.items() if value is not None for part in (f"--{name}", value)]


@pytest.fixture(scope="module")
def inputs(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    table = FeatureTable(world.features, world.image_ids, {"backbone": "simulation", "normalized": True})
    save_features(folder / "features.npz", table)
    return Inputs(folder, folder / "features.npz", **world.people[0].write(folder))
