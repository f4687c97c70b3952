"""Regions of interest: named sets of voxels, from images on the mask's grid or from one label per voxel."""

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.grids import Grid, as_labels, check_same_grid, read_volume
from braincorl.datasets.file_names import blanked, entities
from braincorl.errors import InputError
from braincorl.storage.files import read_text, text_lines

Rois = dict[str, npt.NDArray[np.bool_]]

UNLABELLED = ("unlabelled", "unlabeled")


def read_rois(paths: Iterable[str | Path], grid: Grid | None, n_voxels: int) -> Rois:
    """Read regions from files.

    Parameters
    ----------
    paths
        NIfTI images on the mask's grid, each a mask (named by its `label-` entity or its file name) or an atlas of
        integer labels (values above 0, named by a table `index`, `name` of the same name ending in `.tsv`, if there is
        one); or text files with one label per voxel of the mask, in its order.
    grid
        The mask, or None for responses without a grid.
    n_voxels
        Voxels of the mask.

    Returns
    -------
    dict
        Name -> bool (n_voxels,). Voxels may be in several regions or in none.

    Raises
    ------
    InputError
        If a file is missing, on another grid, or names a region that another file named.
    """
    rois: Rois = {}
    for path in map(Path, paths):
        if path.name.endswith((".nii", ".nii.gz")):
            found = _from_image(path, grid)
        else:
            found = labels_to_rois(read_label_lines(path), n_voxels, str(path))
        for name, members in found.items():
            if name == "all":
                raise InputError(f"{path} names a region 'all', which tables use for all voxels: rename it.")
            if name in rois:
                raise InputError(f"{path} names region '{name}', which an earlier file named too: rename one.")
            rois[name] = members
    return rois


def labels_to_rois(labels: Iterable[Any], n_voxels: int, source: str = "rois") -> Rois:
    """Regions from one label per voxel.

    Parameters
    ----------
    labels
        Text per voxel (n_voxels,); "", "n/a" and "unlabelled" mean no region, and so do words like "none", with a
        warning.
    n_voxels
        Voxels expected.
    source
        Name for messages.

    Returns
    -------
    dict
        Name -> bool (n_voxels,), in order of name.

    Raises
    ------
    InputError
        If the number of labels differs.
    """
    names = np.asarray(blanked(map(str, labels), source, UNLABELLED), dtype=np.str_)
    if names.shape != (n_voxels,):
        raise InputError(f"{source} has {names.size} labels for {n_voxels} voxels of the mask: one label per voxel.")
    return {str(name): names == name for name in np.unique(names) if name != ""}


def names_among(voxels: str | Iterable[str], known: Iterable[str], expected: str) -> list[str]:
    """Names of the regions that a choice of voxels is made of.

    Parameters
    ----------
    voxels
        A name, or several.
    known
        Names that there are.
    expected
        What could be chosen, for the message.

    Raises
    ------
    InputError
        If none is named, or one that there is not.
    """
    names = [voxels] if isinstance(voxels, str) else list(voxels)
    unknown = sorted(set(names) - set(known), key=names.index)
    if unknown or not names:
        raise InputError(f"voxels names {', '.join(unknown) or 'nothing'}, expected {expected}.")
    return names


def rois_to_labels(rois: Mapping[str, npt.NDArray[np.bool_]], n_voxels: int) -> npt.NDArray[np.str_]:
    """One label per voxel: the smallest region that holds it, "" for none.

    Parameters
    ----------
    rois
        Name -> bool (n_voxels,).
    n_voxels
        Number of voxels.

    Returns
    -------
    ndarray of shape (n_voxels,)
    """
    width = max((len(name) for name in rois), default=1)
    labels = np.full(n_voxels, "", dtype=f"<U{width}")
    for name in sorted(rois, key=lambda name: int(rois[name].sum()), reverse=True):
        labels[rois[name]] = name
    return labels


def _from_image(path: Path, grid: Grid | None) -> Rois:
    if grid is None:
        raise InputError(f"{path} is an image, but the betas came without a mask: pass a mask, or one label per voxel.")
    values, affine = read_volume(path)
    check_same_grid(values.shape, affine, path, grid)
    values = values[grid.mask]
    finite = values[np.isfinite(values)]
    table = path.with_name(_stem(path) + ".tsv")
    named = table.exists() or table.is_symlink()  # a link to nothing is refused where it is read
    if np.unique(finite[finite > 0]).size == 1 and not (finite < 0).any() and not named:
        values = values > 0  # a mask, whatever number stands for inside
    inside = as_labels(values, path)
    labels = np.unique(inside[inside > 0])
    if labels.size == 0:
        raise InputError(f"{path} labels no voxel of the mask: check that it belongs to this person.")
    if labels.size == 1 and not named:
        return {_mask_name(path): inside > 0}
    names = _read_label_names(table) if named else {}
    rois: Rois = {}
    for label in labels:
        given = names.get(int(label))
        name = f"{_mask_name(path)}-{int(label)}" if given is None else given + _side(path)
        rois[name] = rois.get(name, False) | (inside == label)  # left and right parts may share a name
    return rois


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name)


def _mask_name(path: Path) -> str:
    label = entities(path).get("label")
    return _stem(path) if label is None else label + _side(path)


def _side(path: Path) -> str:
    """Hemisphere that a file's name states: a region of the left is another than that of the right."""
    hemisphere = entities(path).get("hemi")
    return "" if hemisphere is None else f"_hemi-{hemisphere}"


def _read_label_names(path: Path) -> dict[int, str]:
    lines = text_lines(read_text(path, "table of labels"))
    try:
        rows = list(csv.DictReader(lines, delimiter="\t"))
        names = blanked([row["name"] for row in rows], str(path))
        return {int(row["index"]): name for row, name in zip(rows, names, strict=True) if name}
    except (KeyError, ValueError, AttributeError, TypeError, csv.Error) as error:
        raise InputError(f"{path} must have columns 'index' (whole numbers) and 'name', separated by tabs.") from error


def read_label_lines(path: Path) -> list[str]:
    """Read one label per line.

    Raises
    ------
    InputError
        If the file is missing or no text.
    """
    return text_lines(read_text(path, "NIfTI image or text file of one label per voxel"))
