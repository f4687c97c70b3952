"""Posteriors as the named arrays of an encoder's file, and back: one field, one array."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from braincorl.errors import FileFormatError

Posterior = TypeVar("Posterior")


def posterior_arrays(posterior: Any) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a posterior, a dataclass of arrays, as an encoder's file stores them."""
    return {f"posterior.{field.name}": np.asarray(getattr(posterior, field.name)) for field in fields(posterior)}


def restore_posterior(kind: type[Posterior], arrays: Mapping[str, npt.NDArray[Any]]) -> Posterior:
    """Undo `posterior_arrays`.

    Parameters
    ----------
    kind
        The dataclass.
    arrays
        Of an encoder's file.

    Raises
    ------
    FileFormatError
        If an array is missing.
    """
    try:
        return kind(**{field.name: arrays[f"posterior.{field.name}"] for field in fields(kind)})  # type: ignore[arg-type]
    except KeyError as error:
        raise FileFormatError(
            f"The encoder file holds no {error}: it is incomplete, or of an earlier version; fit again."
        ) from error
