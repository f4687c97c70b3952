"""`Recording`: one person's files, opened and understood but not read yet.

Every reader of a data set ends here: it says where the trials are, what each of them showed, which voxels are looked
at, and what is known of them. From a recording follows a `SubjectData`, read at once (`load`), or session by session
into a file (`braincorl.datasets.trials.preparing`).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.beta_files import BetasSource
from braincorl.datasets.betas.grids import Grid
from braincorl.datasets.file_names import without_endings
from braincorl.datasets.space import Surface, VoxelSpace
from braincorl.datasets.subject import SubjectData
from braincorl.datasets.trials.averaging import ImageAverages, average_trials
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.errors import InputError
from braincorl.storage.files import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """One person's trials on disk, with everything that is needed to read them.

    Attributes
    ----------
    name
        BIDS label of the person, as in `sub-01`.
    sources
        Betas files, in order, all with the same voxels.
    tables
        What each trial of each file showed.
    zscore
        Whether each voxel is scaled to mean 0 and standard deviation 1 over the trials of each session.
    grid
        Mask of the voxels, or None without a volume.
    surface
        Vertices looked at, for data on a surface.
    rois
        Region name -> bool over the voxels of the mask.
    ncsnr
        Signal over noise standard deviation of each voxel of the mask; None to estimate it from repeats.
    options
        What was asked for, JSON-serialisable: how a prepared file is told from another one.

    Raises
    ------
    InputError
        If z-scoring is wanted but sessions are unknown.
    """

    name: str
    sources: Sequence[BetasSource]
    tables: Sequence[TrialsTable]
    zscore: bool
    grid: Grid | None = None
    surface: Surface | None = None
    rois: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    ncsnr: npt.NDArray[np.float64] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sessions = np.unique(np.concatenate([table.sessions[table.images != ""] for table in self.tables]))
        if self.zscore and "" in sessions and (sessions.size > 1 or len(self.sources) > 1):
            raise InputError(
                "zscore='session' needs the session of every trial: add a column 'session' to the trials tables, "
                "or 'ses-' to the names of the betas files."
            )
        if self.zscore and sessions.size == 1 and sessions[0] == "":
            logger.warning(
                "nothing says which session the %d trials of %s are of: they are scaled as one session (a column "
                "'session' in the trials table tells)",
                self.n_trials,
                self.sources[0].path,
            )
        if not self.zscore and sessions.size > 1:
            logger.info(
                "the betas come from %d sessions and are not z-scored: consider scaling each session (zscore session)",
                sessions.size,
            )

    @property
    def n_voxels(self) -> int:
        """Voxels of the mask."""
        return self.sources[0].n_voxels

    @property
    def n_trials(self) -> int:
        """Trials of all files, those without an image included."""
        return sum(source.n_trials for source in self.sources)

    @property
    def files(self) -> list[Path]:
        """Betas files; two for a source of two hemispheres."""
        return [path for source in self.sources for path in getattr(source, "paths", (source.path,))]

    def image_ids(self, images: Iterable[str] | None = None) -> npt.NDArray[np.str_]:
        """Distinct images in order of first appearance (n_images,), all or those among `images`.

        Raises
        ------
        InputError
            If there is none.
        """
        shown = list(dict.fromkeys(str(image) for table in self.tables for image in table.images if image != ""))
        if not shown:
            raise InputError("the trials tables name no image: column 'image' is empty in every row.")
        return np.asarray(shown) if images is None else _images_to_keep(shown, {str(image) for image in images})

    def load(self, images: Iterable[str] | None = None, progress: Progress | None = None) -> SubjectData:
        """Read the person, averaging the repeats of each image.

        Parameters
        ----------
        images
            Images to keep, as those with features; by default all.
        progress
            Called with (trials read, trials in all).

        Returns
        -------
        SubjectData

        Raises
        ------
        InputError
            If no image or voxel is usable.
        FileFormatError
            If a file is damaged.
        """
        wanted = None if images is None else list(map(str, images))
        tables = self.tables if wanted is None else self.named_as(wanted).tables
        kept = replace(self, tables=tables).image_ids(wanted)
        return self.subject(average_trials(self.sources, tables, kept, zscore=self.zscore, progress=progress))

    def named_as(self, images: Iterable[str]) -> "Recording":
        """Call images as their features are called, where the names differ by the ending of a picture's file alone."""
        found = without_endings(self.image_ids().tolist(), map(str, images))
        if not found:
            return self
        names = [[found.get(image, image) for image in table.images.tolist()] for table in self.tables]
        tables = [replace(table, images=np.asarray(n)) for table, n in zip(self.tables, names, strict=True)]
        return replace(self, tables=tables)

    def trial_by_trial(self) -> tuple["Recording", dict[str, str]]:
        """Take every trial for an image of its own, so that nothing is averaged.

        Returns
        -------
        recording : Recording
            The same trials, named `trial-1`, `trial-2`, … by their rows over all tables.
        images : dict
            What each of these showed; those that showed no image are left out.
        """
        tables: list[TrialsTable] = []
        images: dict[str, str] = {}
        before = 0
        for table in self.tables:
            names = [
                f"trial-{before + row}" if image else "" for row, image in enumerate(table.images.tolist(), start=1)
            ]
            images |= {name: image for name, image in zip(names, table.images.tolist(), strict=True) if name}
            tables.append(replace(table, images=np.asarray(names, dtype=np.str_)))
            before += len(table)
        return replace(self, tables=tables), images

    def subject(self, averages: ImageAverages) -> SubjectData:
        """Join averages over the mask's voxels to what is known of those voxels."""
        included = averages.included
        space = self.space(included)
        if space.n_excluded:
            logger.warning(
                "%d of %d voxels are constant or not finite: kept out of fits, NaN in maps",
                space.n_excluded,
                included.size,
            )
        signal = averages.ncsnr if self.ncsnr is None else self.ncsnr
        return SubjectData(
            responses=averages.responses if space.n_excluded == 0 else averages.responses[:, included],
            image_ids=averages.image_ids,
            space=space,
            n_repeats=averages.n_repeats,
            rois={region: members[included] for region, members in self.rois.items()},
            ncsnr=None if signal is None else signal[included],
            name=self.name,
            n_sessions=self.n_sessions,
            zscore="session" if self.zscore else "none",
        )

    @property
    def n_sessions(self) -> int | None:
        """Sessions with images, or None where the tables do not say."""
        names = {name for table in self.tables for name in np.unique(table.sessions[table.images != ""]).tolist()}
        return len(names - {""}) or None

    def space(self, included: npt.NDArray[np.bool_]) -> VoxelSpace:
        """Where the voxels are, given which of the mask carry data."""
        if self.surface is not None:
            return VoxelSpace(included, surface=self.surface)
        if self.grid is None:
            return VoxelSpace(included)
        return VoxelSpace(included, self.grid.mask, self.grid.affine, space_code=self.grid.space_code)


def _images_to_keep(shown: list[str], wanted: set[str]) -> npt.NDArray[np.str_]:
    kept = [image for image in shown if image in wanted]
    if not kept:
        example = next(iter(wanted), "none")
        raise InputError(
            f"no image is in both tables: the trials show images such as '{shown[0]}', the features are of images such "
            f"as '{example}'; use the same names in both."
        )
    if len(kept) < len(shown):
        logger.warning(
            "%d of %d images in the trials have no features and are left out, such as '%s'",
            len(shown) - len(kept),
            len(shown),
            next(image for image in shown if image not in wanted),
        )
    return np.asarray(kept)
