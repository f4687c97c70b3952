"""`Fitted`: one person's fitted encoder as data, with what it says of itself. `Fit` adds what can be asked of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl.cells import facts_html
from braincorl.datasets import Grid, Surface, VoxelSpace
from braincorl.encoders import LinearEncoder
from braincorl.errors import InputError
from braincorl.fits.folder import encoder_maps, read_maps
from braincorl.fits.scores import SCORES, Scores, summarize_rois
from braincorl.storage.files import read_json
from braincorl.storage.tensorfile import read_metadata

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Fitted:
    """A person's fitted encoder, and what is needed to use and to repeat it; attributes are told of in `Fit`."""

    encoder: LinearEncoder
    space: VoxelSpace
    rois: dict[str, npt.NDArray[np.bool_]]
    config: dict[str, Any]
    context: list[str]
    path: Path | None = None
    kept_maps: Mapping[str, Array] | None = None

    def __repr__(self) -> str:
        """Say whose fit it is."""
        name = type(self.encoder).__name__
        return f"Fit({self.subject}: {name} of {self.space.n_voxels} voxels from {len(self.context)} images)"

    def _repr_html_(self) -> str:
        """Show a notebook what it is; of a fit on disk no map is read for that."""
        n_voxels, n_features = self.encoder.coef_.shape
        network = self.config["features_provenance"].get("backbone", "an unknown network")
        facts = {
            "encoder": type(self.encoder).__name__,
            "voxels": f"{n_voxels:,}" + f", of them in {', '.join(self.rois)}" * bool(self.rois),
            "context": f"{len(self.context)} images",
            "features": f"{n_features} of {network}",
            "folder": self.path or "not saved",
        }
        known = self.kept_maps or {}
        facts |= {
            f"mean {label}": f"{np.nanmean(known[name]):.3f}"
            for name, label in (("ev", "EV"), ("noiseceiling", "noise ceiling"))
            if name in known and np.isfinite(known[name]).any()
        }
        simulated = "SIMULATION: no brain was measured." if self.config.get("simulation") else ""
        return facts_html(f"Fit of {self.subject}", facts, simulated)

    @property
    def subject(self) -> str:
        """BIDS label of the person."""
        return str(self.config["subject"])

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"the fit of {self.subject}" if self.path is None else f"the fit in {self.path}"

    def beside(self, name: str) -> Path | None:
        """Folder of another result that lies in the fit's own, such as "scores"; None if there is none."""
        found = None if self.path is None else self.path / name
        return found if found is not None and found.is_dir() else None

    @property
    def grid(self) -> Grid | Surface | None:
        """Grid or surface of its voxels, to read other responses with; None without one."""
        space = self.space
        if space.surface is not None:
            return space.surface
        if space.mask is None or space.affine is None:
            return None
        return Grid(space.mask, space.affine, self.path or Path(self.title), space.space_code)

    def maps(self) -> dict[str, Array]:
        """Everything known per voxel, name -> (n_voxels,): names, meanings and units are `braincorl.fits.MAPS`."""
        if self.kept_maps is None and self.path is not None:
            return dict(read_maps(self.path, self.config["prefix"], self.space))
        return encoder_maps(self.encoder) | dict(self.kept_maps or {})

    @property
    def scores(self) -> Scores:
        """Scores of the images left out, as `Fit.score` names them; empty if there were none."""
        maps = self.maps()
        return {name: maps[name] for name in SCORES if name in maps} if "ev" in maps else {}

    def table(self, n_bootstrap: int = 0) -> pd.DataFrame:
        """Tell scores of the images left out as means over all voxels and per region: see `summarize_rois`.

        Raises
        ------
        InputError
            If no image was left out.
        """
        if not self.scores:
            raise InputError(f"{self.title} left no image out to score: score it on other images, with Fit.score.")
        return summarize_rois(self.scores, self.rois, n_bootstrap)

    def identity(self) -> dict[str, Any]:
        """Say which fit a result was made with, for its config.json."""
        return {
            "fit": None if self.path is None else str(self.path),
            "fit_sha256": None if self.path is None else read_metadata(self.path / "encoder.safetensors")["sha256"],
            "subject": self.subject,
            "prefix": self.config["prefix"],
        }

    def check_result(self, folder: Path) -> None:
        """Refuse a result that was made with another fit.

        Parameters
        ----------
        folder
            Of a verb that takes a fit, such as score. One without a config.json, as earlier versions wrote it, passes.

        Raises
        ------
        InputError
            Naming both fits.
        """
        if not (folder / "config.json").is_file():
            return
        made = read_json(folder / "config.json")
        if made.get("fit_sha256") != self.identity()["fit_sha256"]:
            raise InputError(
                f"{folder} was made with another fit ({made.get('fit', 'unknown')}) than {self.title}, or with an "
                "earlier state of it: pass a result of this one."
            )
