"""Where a stage's episodes come from: synthetic worlds, or people with measured responses; files are read once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from braincorl.errors import InputError
from braincorl.features import load_features
from braincorl.training.real import read_people
from braincorl.training.real_images import read_images
from braincorl.training.recipe import StageConfig
from braincorl.training.voxels import Memory
from braincorl.training.worlds import Episode, draw_episode
from braincorl.validation import FloatArray

Draw = Callable[[np.random.Generator], Episode]


@dataclass(frozen=True)
class Source:
    """What a stage draws from.

    Attributes
    ----------
    learn
        Draws an episode to learn from.
    judge
        Draws an episode of the validation set.
    """

    learn: Draw
    judge: Draw


def read_source(stage: StageConfig, n_features: int, memories: Sequence[Memory]) -> Source:
    """Read the files of a stage.

    Parameters
    ----------
    stage
        Which files, and what to make of them.
    n_features
        That the network reads.
    memories
        Of the recipe's priors.

    Returns
    -------
    Source

    Raises
    ------
    InputError
        If a file is missing, damaged or too small, or files do not fit one another or the network.
    """
    try:
        if stage.real is None:
            world = stage.world
            images = read_images(world.features, world.n_images[0] + world.n_query)
            for name, pool in zip(world.features, images, strict=True):
                _check_features(name, pool.features, n_features)
            draw = partial(draw_episode, world, n_features, memories, images)
            return Source(draw, draw)
        features = load_features(stage.real.features).features
        _check_features(stage.real.features, features, n_features)
        names = (stage.real.responses, stage.real.held_out)
        learn, held_out = (read_people(stage.real, features, people) for people in names)
    except InputError as error:
        raise InputError(f"stage {stage.name!r}: {error}") from error
    return Source(learn.draw, held_out.draw)


def _check_features(name: str, features: FloatArray, n_features: int) -> None:
    if features.shape[1] != n_features:
        raise InputError(
            f"{name} has {features.shape[1]} features an image, but the network reads {n_features}: set n_features in "
            "[network], or embed the images with another backbone."
        )
