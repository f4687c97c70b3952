"""Recipes: what a network is, what it is trained on, in which stages; read from TOML, unknown keys refused.

architecture = "native"            # or "reference", the published network
seed = 0
priors = ["bold5000-resnet18"]     # group priors whose voxels synthetic people may have: names or files
[network]                          # sizes: NativeConfig or ReferenceConfig
[[stages]]
name = "synthetic"
people = 20000                     # episodes
learning_rate = 2e-3
[stages.world]                     # WorldConfig
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
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from braincorl.errors import InputError
from braincorl.models import NativeConfig, ReferenceConfig
from braincorl.training.worlds import WorldConfig

Config = TypeVar("Config")
_WARM_UP = 0.05
_LOWEST_RATE = 0.01


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
        if isinstance(self.responses, str) or isinstance(self.held_out, str):
            raise InputError("responses and held_out are lists of files: write them in brackets.")
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
    architecture
        "native" or "reference".
    network
        Sizes.
    stages
        In order.
    seed
        Of weights and episodes.
    priors
        Names or files of group priors.
    n_validation
        Episodes of the fixed validation set.
    note
        Free text for the checkpoint's header.
    """

    architecture: str
    network: NativeConfig | ReferenceConfig
    stages: tuple[StageConfig, ...]
    seed: int = 0
    priors: tuple[str, ...] = ()
    n_validation: int = 48
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not isinstance(self.seed, int) or self.seed < 0 or self.n_validation < 1:
            raise InputError("seed must be a whole number from 0 up, and n_validation at least 1.")

    @property
    def digest(self) -> str:
        """Hash of everything in the recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


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
        If the file is missing or no TOML, a key is unknown or missing, or a value impossible.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): pass a recipe in TOML.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML ({error}).") from error
    architecture = content.pop("architecture", "native")
    kinds: dict[str, type[Any]] = {"native": NativeConfig, "reference": ReferenceConfig}
    if architecture not in kinds:
        raise InputError(f"{path}: architecture must be one of {', '.join(kinds)}, but is {architecture!r}.")
    stages = content.pop("stages", [])
    if not isinstance(stages, list) or not stages:
        raise InputError(f"{path} has no [[stages]]: add at least one.")
    network = build(kinds[architecture], content.pop("network", {}), f"{path}, [network]")
    content["stages"] = tuple(_stage(stage, path) for stage in stages)
    content["priors"] = tuple(_located(name, path) for name in content.pop("priors", []))
    recipe: Recipe = build(Recipe, {"architecture": architecture, "network": network, **content}, str(path))
    return recipe


def build(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Make a configuration from a table, lists as tuples.

    Raises
    ------
    InputError
        If a key is unknown, missing or of the wrong type.
    """
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(f"{where}: {unknown[0]!r} is unknown; known are {', '.join(known)}.")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} is incomplete or holds a value of the wrong type ({error}).") from error


def _stage(table: Mapping[str, Any], path: Path) -> StageConfig:
    values = dict(table)
    where = f"{path}, stage {values.get('name', '?')!r}"
    if "world" in values:
        values["world"] = build(WorldConfig, values["world"], where)
    if "real" in values:
        real = dict(values["real"])
        for name in ("responses", "held_out"):
            real[name] = [_located(file, path) for file in real.get(name, [])]
        if "features" in real:
            real["features"] = _located(real["features"], path)
        values["real"] = build(RealConfig, real, where)
    return build(StageConfig, values, where)


def _located(name: str, recipe: Path) -> str:
    """Path of a file that a recipe names, relative to it; names of shipped priors stay."""
    candidate = recipe.parent / name
    return str(candidate) if candidate.is_file() else name
