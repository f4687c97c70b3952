"""Recipes: what a network is, what it is trained on, in which stages; read from TOML, unknown keys refused.

architecture = "reference"         # the published network; in the native one nothing is trained
seed = 0
priors = ["bold5000-resnet18"]     # group priors: synthetic people may have voxels like theirs; names or files
[network]                          # sizes: ReferenceConfig
n_features = 512
width = 160
[[stages]]
name = "synthetic"
people = 20000                     # episodes
learning_rate = 2e-3
[stages.world]                     # WorldConfig
features = ["features.npz"]        # real images that some synthetic people see
[[stages]]
name = "real"
people = 2000
learning_rate = 2e-4
[stages.real]                      # RealConfig: people with measured responses, one of them left out
features = "features.npz"
responses = ["sub-01.npy", "sub-02.npy"]
held_out = ["sub-03.npy"]
"""

import hashlib
import json
import math
import tomllib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from braincorl.errors import InputError
from braincorl.models import ReferenceConfig
from braincorl.storage.files import read_text, reading
from braincorl.training.tables import build
from braincorl.training.worlds import WorldConfig

ARCHITECTURE = "reference"
_WARM_UP = 0.05  # share of a stage's steps, as usual for transformers
_LOWEST_RATE = 0.01  # of the learning rate, at the end of the cosine


@dataclass(frozen=True)
class RealConfig:
    """People with measured responses to images whose features are known.

    Attributes
    ----------
    features
        File of features; its rows are the rows of every response array.
    responses
        `.npy` files (n_images, n_voxels) of the people to learn from; NaN rows are images that a person did not see.
    held_out
        Likewise, of the people on whom training is stopped; never learned from.
    n_images
        Smallest and largest context.
    n_query
        Images to be predicted.
    n_voxels
        Voxels of an episode, at most.
    """

    features: str
    responses: tuple[str, ...]
    held_out: tuple[str, ...]
    n_images: tuple[int, int] = (5, 200)
    n_query: int = 64
    n_voxels: int = 1024

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not self.responses or not self.held_out:
            raise InputError("a real stage needs people to learn from (responses) and to stop on (held_out).")
        learned, judged = ({Path(name).resolve() for name in names} for names in (self.responses, self.held_out))
        if learned & judged:
            raise InputError("a person is both in responses and in held_out: leave one of the two.")
        if not 2 <= self.n_images[0] <= self.n_images[1] or self.n_query < 2:
            raise InputError("n_images must be a range from 2 up, and n_query at least 2.")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training.

    Attributes
    ----------
    name
        For the log.
    people
        Episodes to learn from.
    learning_rate
        Highest; reached after a twentieth of the stage, then falling as a cosine to a hundredth.
    people_per_step
        Episodes that one step of the optimiser averages over.
    weight_decay
        Of AdamW.
    validate_every
        Steps between validations.
    patience
        Validations without a better one after which a stage on real people stops.
    world
        Synthetic people.
    real
        Real people instead.
    """

    name: str
    people: int
    learning_rate: float = 2e-3
    people_per_step: int = 8
    weight_decay: float = 0.01
    validate_every: int = 100
    patience: int = 5
    world: WorldConfig = field(default_factory=WorldConfig)
    real: RealConfig | None = None

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        if min(self.people, self.people_per_step, self.validate_every, self.patience) < 1:
            raise InputError(f"stage {self.name!r}: counts must be at least 1.")
        if self.people < self.people_per_step:
            raise InputError(f"stage {self.name!r} has {self.people} people, fewer than one step takes.")
        if not self.learning_rate > 0 or self.weight_decay < 0:
            raise InputError(f"stage {self.name!r}: learning_rate must be positive and weight_decay not negative.")

    @property
    def n_steps(self) -> int:
        """Steps of the optimiser."""
        return self.people // self.people_per_step

    def rate(self, step: int) -> float:
        """Learning rate of a step: up in a line, down as a cosine."""
        warm = max(1, round(_WARM_UP * self.n_steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        phase = (step - warm) / max(1, self.n_steps - warm)
        return self.learning_rate * (_LOWEST_RATE + (1 - _LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * phase)))


@dataclass(frozen=True)
class Recipe:
    """All that decides a trained network.

    Attributes
    ----------
    network
        Sizes.
    stages
        In order.
    architecture
        "reference", the published network.
    seed
        Of weights and episodes.
    priors
        Names or files of group priors.
    n_validation
        Episodes of the fixed validation set.
    note
        Free text for the checkpoint's header.
    """

    network: ReferenceConfig
    stages: tuple[StageConfig, ...]
    architecture: str = ARCHITECTURE
    seed: int = 0
    priors: tuple[str, ...] = ()
    n_validation: int = 48
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        _check_architecture(self.architecture)
        if self.seed < 0 or self.n_validation < 1:
            raise InputError("seed must be a whole number from 0 up, and n_validation at least 1.")
        if not self.stages:
            raise InputError("there are no [[stages]]: add at least one.")

    @property
    def digest(self) -> str:
        """Hash of everything in the recipe, with the content of its files in the place of their names."""
        content = asdict(self)
        content["priors"] = [_content(name) for name in self.priors]
        for stage in content["stages"]:
            world, real = stage["world"], stage["real"]
            world["features"] = [_content(name) for name in world["features"]]
            if real is not None:
                real["features"] = _content(real["features"])
                for key in ("responses", "held_out"):
                    real[key] = [_content(name) for name in real[key]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path
        TOML file; file names in it are relative to its folder.

    Returns
    -------
    Recipe

    Raises
    ------
    InputError
        If the file is missing or no TOML, a key is unknown or missing, or a value impossible or of the wrong type.
    """
    path = Path(path)
    text = read_text(path, "recipe in TOML")
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no TOML ({error}).") from error
    try:  # before all else: the sizes of another network would be unknown keys
        _check_architecture(content.get("architecture", ARCHITECTURE))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    recipe = build(Recipe, {"stages": [], **content}, str(path))
    return replace(
        recipe,
        priors=tuple(_prior(name, path.parent) for name in recipe.priors),
        stages=tuple(_located(stage, path.parent) for stage in recipe.stages),
    )


def _check_architecture(name: Any) -> None:
    if name == "native":
        raise InputError(
            "architecture 'native' cannot be trained, since nothing in it is: use InContextEncoder() as it is, or "
            f"train the published network with architecture = {ARCHITECTURE!r}."
        )
    if name != ARCHITECTURE:
        raise InputError(f"architecture must be {ARCHITECTURE!r}, the published network, but is {name!r}.")


def _located(stage: StageConfig, folder: Path) -> StageConfig:
    """Put the folder of the recipe before the names of a stage's files."""
    real = stage.real
    if real is not None:
        learned, judged = (tuple(str(folder / name) for name in names) for names in (real.responses, real.held_out))
        real = replace(real, features=str(folder / real.features), responses=learned, held_out=judged)
    features = tuple(str(folder / name) for name in stage.world.features)
    return replace(stage, world=replace(stage.world, features=features), real=real)


def _prior(name: str, folder: Path) -> str:
    """Path of a prior's file beside the recipe; names of shipped priors stay."""
    return str(folder / name) if (folder / name).is_file() else name


def _content(name: str) -> str:
    """Hash of a file; names of shipped priors stay, and those of missing files, which are refused elsewhere."""
    path = Path(name)
    if not path.is_file():
        return name
    with reading(path, "cannot be read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
