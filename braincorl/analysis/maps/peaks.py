"""Where a map peaks: its clusters with their peaks, and the strongest voxel of each region, in millimetres.

Volumes are nilearn's business (`get_clusters_table`: voxels that share a face, subpeaks at least 8 mm apart). Its table
of surfaces knows no places, so there clusters are vertices that edges of the mesh connect, with a peak each.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage, sparse

from braincorl.analysis.maps.surface_plots import mesh_triangles, on_fsaverage
from braincorl.datasets.meshes import COMMON, vertex_places
from braincorl.datasets.space import VoxelSpace
from braincorl.datasets.trials.rois import rois_to_labels
from braincorl.errors import InputError
from braincorl.fits.maps import unmask

Rois = Mapping[str, npt.NDArray[np.bool_]]

PLACE = ["x_mm", "y_mm", "z_mm"]
MOST_CLUSTERS = 20  # a table that is read; the map has them all
APART = 8.0  # mm between the peaks of one cluster, as in nilearn's reports


@dataclass(frozen=True)
class Clusters:
    """Clusters of a map.

    Attributes
    ----------
    table
        The largest, the one with the highest peak first: `cluster` (1, its further peaks 1a, 1b …), on surfaces
        `hemisphere` and `vertex`, `x_mm`, `y_mm`, `z_mm` where places are known, `peak`, `size` (mm³, or vertices; of
        the first peak), `roi` (the smallest region that holds the peak).
    n_clusters
        How many there are in all.
    """

    table: pd.DataFrame
    n_clusters: int


def find_clusters(
    values: npt.ArrayLike, space: VoxelSpace, found: npt.NDArray[np.bool_], rois: Rois | None = None
) -> Clusters:
    """List the clusters of the voxels that were found, and their peaks.

    Parameters
    ----------
    values
        (n_voxels,); a peak is the highest.
    space
        Where the voxels are: a grid, or vertices of fsaverage5, 6 or 7 (at those of fsaverage5) or of fsLR32k.
    found
        Which voxels count (n_voxels,), such as those below a false discovery rate; values of at most 0 do not.
    rois
        Region name -> bool (n_voxels,).

    Returns
    -------
    Clusters

    Raises
    ------
    InputError
        If the voxels have no places.
    """
    array = np.asarray(values, dtype=np.float64)
    kept = np.where(np.asarray(found) & (array > 0), array, np.nan)
    labels = rois_to_labels(dict(rois or {}), array.size)
    if space.surface is not None:
        return _on_surface(kept, space, labels)
    return _in_volume(kept, space, labels)


def region_peaks(values: npt.ArrayLike, space: VoxelSpace, rois: Rois) -> pd.DataFrame:
    """Find the voxel of each region with the highest value.

    Parameters
    ----------
    values
        (n_voxels,).
    space
        Where the voxels are.
    rois
        Region name -> bool (n_voxels,); one without a finite value is left out.

    Returns
    -------
    pandas.DataFrame
        `roi`, `x_mm`, `y_mm`, `z_mm` where places are known, `peak`.
    """
    array = np.asarray(values, dtype=np.float64)
    try:
        places: npt.NDArray[np.float64] | None = space.coordinates()
    except InputError:
        places = None
    rows = []
    for name, members in rois.items():
        inside = np.flatnonzero(members & np.isfinite(array))
        if inside.size:
            best = inside[np.argmax(array[inside])]
            place = {} if places is None else dict(zip(PLACE, places[best].round(1).tolist(), strict=True))
            rows.append({"roi": name, **place, "peak": float(array[best])})
    return pd.DataFrame(rows)


def _in_volume(kept: npt.NDArray[np.float64], space: VoxelSpace, labels: npt.NDArray[np.str_]) -> Clusters:
    from nilearn.reporting import get_clusters_table

    volume = unmask(np.nan_to_num(kept), space, "zero")
    data = np.nan_to_num(volume.get_fdata(dtype=np.float32))
    numbers, n_clusters = ndimage.label(data > 0)
    if not n_clusters:
        return Clusters(pd.DataFrame(columns=["cluster", *PLACE, "peak", "size", "roi"]), 0)
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    largest = np.argsort(-sizes, kind="stable")[: min(MOST_CLUSTERS, n_clusters)]
    # nilearn goes through the volume for every cluster, of which noise makes thousands.
    shown = type(volume)(np.where(np.isin(numbers, largest), data, 0.0), volume.affine)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Attention: At least one of the")  # peaks beside a hollow cluster
        table: Any = get_clusters_table(shown, stat_threshold=0, min_distance=APART)
    table.columns = ["cluster", *PLACE, "peak", "size"]
    table["cluster"] = table["cluster"].astype(str)
    table["size"] = pd.to_numeric(table["size"], errors="coerce").astype("Int64")
    voxel = unmask(np.arange(1.0, kept.size + 1), space, "zero").get_fdata(dtype=np.float32)
    places = table[PLACE].to_numpy(dtype=float)
    indices = np.rint(np.linalg.solve(volume.affine, np.c_[places, np.ones(len(places))].T)[:3]).astype(int)
    which = np.nan_to_num(voxel[tuple(indices)]).astype(int)
    table["roi"] = np.where(which > 0, labels[which - 1], "")
    return Clusters(table, n_clusters)


def _on_surface(kept: npt.NDArray[np.float64], space: VoxelSpace, labels: npt.NDArray[np.str_]) -> Clusters:
    halves = on_fsaverage(kept, space)
    numbered = on_fsaverage(np.arange(float(kept.size)), space)
    rows = []
    for side, values in halves.items():
        known = np.flatnonzero(np.isfinite(values))
        places = vertex_places(COMMON[values.size], side, values.size)
        for members in _connected(mesh_triangles(side, values.size), known, values.size):
            vertex = int(members[np.argmax(values[members])])
            rows.append(
                {
                    "hemisphere": side,
                    "vertex": vertex,
                    **dict(zip(PLACE, places[vertex].round(1).tolist(), strict=True)),
                    "peak": float(values[vertex]),
                    "size": members.size,
                    "roi": str(labels[int(numbered[side][vertex])]),
                }
            )
    table = pd.DataFrame(rows, columns=["hemisphere", "vertex", *PLACE, "peak", "size", "roi"])
    largest = table.sort_values("size", ascending=False, kind="stable").head(MOST_CLUSTERS)
    table = largest.sort_values("peak", ascending=False, kind="stable", ignore_index=True)
    table.insert(0, "cluster", [str(number) for number in range(1, len(table) + 1)])
    return Clusters(table, len(rows))


def _connected(
    triangles: npt.NDArray[np.intp], known: npt.NDArray[np.intp], n_vertices: int
) -> list[npt.NDArray[np.intp]]:
    """Group the known vertices that edges between them connect."""
    first, second = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).T
    mesh = sparse.csr_array((np.ones(first.size, dtype=bool), (first, second)), shape=(n_vertices, n_vertices))
    n_groups, group = sparse.csgraph.connected_components(mesh[known][:, known], directed=False)
    order = np.argsort(group, kind="stable")
    return np.split(known[order], np.cumsum(np.bincount(group, minlength=n_groups))[:-1]) if known.size else []
