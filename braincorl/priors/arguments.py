"""What users pass to priors, checked: people, settings, names of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braincorl.errors import InputError
from braincorl.storage.named_files import find_pretrained
from braincorl.validation import FloatArray, check_finite, check_pool


def find_prior(name: str | Path) -> Path:
    """File of a prior, by path or by a name that `find_pretrained` knows.

    Raises
    ------
    InputError
        If there is neither; the message lists the shipped names.
    """
    path = Path(name)
    return path if path.is_file() else find_pretrained(name).path


def nonempty(people: Sequence[Any]) -> Sequence[Any]:
    """Refuse no people, and a single pair that is not in a list.

    Raises
    ------
    InputError
        If it is either.
    """
    if isinstance(people, tuple) and len(people) == 2 and all(hasattr(part, "shape") for part in people):
        raise InputError("people is one (features, responses) pair: pass a list of pairs, [(X, y)].")
    if len(people) == 0:
        raise InputError("people is empty: a prior needs at least one earlier person.")
    return people


def check_features(counts: Sequence[int], pool: FloatArray | None) -> None:
    """Refuse people and pools of different feature spaces.

    Raises
    ------
    InputError
        If numbers of features differ or the pool is not finite.
    """
    if len(set(counts)) > 1:
        raise InputError(f"people have {', '.join(map(str, counts))} features: all must come from one backbone.")
    if pool is not None:
        check_pool(pool, counts[0])
        check_finite(pool, "X_pool")


def positive_integer(value: int | str, name: str, automatic: int, largest: int) -> int:
    """Give an integer setting from 1 to `largest`, or `automatic` for "auto".

    Raises
    ------
    InputError
        If it is anything else.
    """
    if value == "auto":
        return automatic
    if not isinstance(value, int | np.integer) or not 1 <= value <= largest:
        raise InputError(f"{name} must be 'auto' or an integer from 1 to {largest}, but is {value!r}.")
    return int(value)
