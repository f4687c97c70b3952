"""Which images a region is predicted to respond to most, and their thumbnails."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl.batching import batches
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.features.images.image_sources import ImageSource, image_source


def rank_images(
    encoder: LinearEncoder, table: FeatureTable, rois: Mapping[str, npt.NDArray[np.bool_]], n_top: int = 8
) -> pd.DataFrame:
    """Find the images with the highest mean predicted response of each region.

    The mean over voxels of linear encoders is one linear encoder, so any number of images is ranked at once.

    Parameters
    ----------
    encoder
        Fitted.
    table
        Features of the images to choose from.
    rois
        Region name -> bool (n_voxels,); regions without voxels are left out.
    n_top
        Images per region.

    Returns
    -------
    pandas.DataFrame
        Columns `roi`, `rank` (from 1), `image`, `response` (in response units), best first.

    Raises
    ------
    InputError
        If the features have another number of columns, or `n_top` is below 1.
    """
    if table.n_features != encoder.coef_.shape[1]:
        raise InputError(f"the features have {table.n_features} columns but the encoder {encoder.coef_.shape[1]}.")
    if n_top < 1:
        raise InputError(f"n_top must be at least 1, but is {n_top}.")
    named = {name: members for name, members in rois.items() if members.any()}
    weights = np.stack([encoder.coef_[members].mean(axis=0) for members in named.values()], axis=1)
    offsets = np.array([encoder.intercept_[members].mean() for members in named.values()])
    parts = batches(len(table.image_ids), 8 * table.n_features)
    responses = np.concatenate([table.features[part] @ weights for part in parts])
    rows = []
    for name, column in zip(named, (responses + offsets).T, strict=True):
        for rank, row in enumerate(np.argsort(-column, kind="stable")[:n_top], start=1):
            rows.append((name, rank, str(table.image_ids[row]), float(column[row])))
    return pd.DataFrame(rows, columns=["roi", "rank", "image", "response"])


@dataclass
class Thumbnails:
    """Small JPEG pictures of images by name.

    Attributes
    ----------
    source
        Where the images are.
    edge
        Width and height in pixels.
    unreadable
        Names of images that were there but could not be read.
    """

    source: ImageSource
    edge: int = 144

    def __post_init__(self) -> None:
        self.unreadable: list[str] = []
        names = list(self.source.image_ids)
        self._row = {name: row for row, name in enumerate(names)}
        stems: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            stems.setdefault(PurePosixPath(name).stem, []).append(row)
        # "cat" is pictures/cat.jpg, unless another folder has a cat too.
        for stem, rows in stems.items():
            if len(rows) == 1:
                self._row.setdefault(stem, rows[0])

    @classmethod
    def of(cls, images: str | Path) -> "Thumbnails":
        """Make thumbnails of a folder of image files or an HDF5 brick.

        Raises
        ------
        InputError
            If it holds no images.
        """
        return cls(image_source(images))

    def get(self, image: str) -> bytes | None:
        """JPEG of an image, cut to a square; None if there is no such image or it cannot be read."""
        row = self._row.get(image, self._row.get(PurePosixPath(image).stem))
        if row is None:
            return None
        from PIL import ImageOps

        try:
            picture = self.source.read(row, "white")
        except InputError:
            self.unreadable.append(image)
            return None
        buffer = io.BytesIO()
        ImageOps.fit(picture, (self.edge, self.edge)).save(buffer, format="JPEG", quality=75)
        return buffer.getvalue()
