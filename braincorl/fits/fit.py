"""`Fit`: one person's fitted encoder with the voxels it belongs to, in memory or on disk.

dataset_description.json   BIDS derivative, with README.md
encoder.safetensors        weights, intercepts, noise, provenance
space.safetensors          mask, affine, voxels with data, regions
config.json                options, versions, counts
context.txt                images that the encoder was fitted on
scores.tsv                 scores of the images left out, per region; where there were any
sub-XX_stat-*_statmap.nii.gz and .json
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from braincorl import __version__
from braincorl.encoders import load_encoder
from braincorl.errors import InputError
from braincorl.fits.exchange import export, to_himalaya
from braincorl.fits.fitted import Fitted
from braincorl.fits.folder import (
    check_prefix,
    read_config,
    read_space,
    write_description,
    write_maps,
    write_space,
)
from braincorl.fits.localiser import write_localiser
from braincorl.fits.maps import Outside
from braincorl.fits.methods import describe_methods
from braincorl.fits.predictions import predict, save_predictions
from braincorl.fits.scored import score_fit
from braincorl.fits.scores import summarize_rois
from braincorl.storage.files import atomic_file, read_text, reading, text_lines, write_json
from braincorl.storage.result_folders import recover, staged_directory


class Fit(Fitted):
    """A person's fitted encoder, to be scored, asked for predictions, kept on disk; made by `fit_person`.

    Attributes
    ----------
    encoder
        Fitted encoder.
    space
        Its voxels.
    rois
        Region name -> bool (n_voxels,).
    config
        Options and counts, JSON-serialisable: at least `subject`, `prefix` (of maps' names), `zscore` and
        `features_provenance`.
    context
        Images that the encoder was fitted on.
    path
        Folder that holds it; None before `save`.
    kept_maps
        Maps beyond the encoder's own, such as scores of the images left out, name -> (n_voxels,); of a fit on disk,
        `maps` reads them.
    """

    # Functions of a `Fitted`, written and documented in files of their own, are its methods.
    predict = predict
    save_predictions = save_predictions
    score = score_fit
    methods = describe_methods
    export = export

    def save(self, path: str | Path, *, overwrite: bool = False, outside: Outside = "nan", note: str = "") -> "Fit":
        """Write encoder, maps, scores and provenance to a folder, whole or not at all.

        Parameters
        ----------
        path
            Folder that does not exist yet, or (with `overwrite`) holds an earlier fit.
        overwrite
            Replace an earlier fit.
        outside
            What voxels outside the mask get in maps: "nan" or "zero".
        note
            What a reader of the folder must know.

        Returns
        -------
        Fit
            The same, with its path.

        Raises
        ------
        OutputError
            If the folder is taken or cannot be written; nothing has changed then.
        """
        with staged_directory(path, overwrite=overwrite, kind="fit") as folder:
            write_fit(folder, self, outside, note)
        return replace(self, path=Path(path))

    def to_himalaya(self) -> Any:
        """Give the encoder as himalaya's `Ridge`: see `braincorl.fits.exchange.to_himalaya`."""
        return to_himalaya(self.encoder)

    @classmethod
    def load(cls, path: str | Path) -> "Fit":
        """Read a folder that `save` or `braincorl fit` wrote.

        Raises
        ------
        InputError
            If it is not such a folder.
        FileFormatError
            If a file in it is damaged.
        """
        path = Path(path)
        recover(path)
        if not (path / "encoder.safetensors").is_file():
            raise InputError(
                f"{path} is no fit: it holds no encoder.safetensors; pass the --output-dir of braincorl fit."
            )
        space, rois = read_space(path / "space.safetensors")
        with reading(path / "encoder.safetensors", "is no encoder of this version"):
            encoder = load_encoder(path / "encoder.safetensors")
        if encoder.coef_.shape[0] != space.n_voxels:
            raise InputError(
                f"{path} mixes two fits: its encoder has {encoder.coef_.shape[0]} voxels, its space {space.n_voxels}."
            )
        config = read_config(path)
        if not (path / "context.txt").is_file():
            raise InputError(f"{path} is incomplete: it holds no context.txt; fit again.")
        context = text_lines(read_text(path / "context.txt", "list of images"))
        stated = config.get("n_context", len(context))
        if stated != len(context):
            raise InputError(
                f"{path} contradicts itself: context.txt lists {len(context)} images, but config.json says that the "
                f"fit was made from {stated}; get a whole copy, or fit again."
            )
        return cls(encoder, space, rois, config, context, path)


def write_fit(folder: Path, fit: Fitted, outside: Outside = "nan", note: str = "") -> None:
    """Write everything of a fit into an existing folder, such as one that `staged_directory` gave.

    Parameters
    ----------
    folder
        The folder.
    fit
        In memory.
    outside
        What voxels outside the mask get in maps.
    note
        What a reader of the folder must know.
    """
    prefix, scores = check_prefix(fit.config["prefix"]), fit.scores
    made_from = getattr(fit.encoder, "provenance_", {})
    fit.encoder.save(folder / "encoder.safetensors", {**made_from, "features": fit.config["features_provenance"]})
    write_space(folder / "space.safetensors", fit.space, fit.rois)
    write_json(folder / "config.json", {"braincorl": __version__, **fit.config})
    with atomic_file(folder / "context.txt") as temporary:
        temporary.write_text("".join(f"{image}\n" for image in fit.context), encoding="utf-8")
    write_maps(folder, prefix, fit.maps(), fit.space, outside)
    write_localiser(folder, prefix, fit.encoder, fit.space, outside)
    if scores:
        summarize_rois(scores, fit.rois).to_csv(folder / "scores.tsv", sep="\t", index=False, na_rep="n/a")
    write_description(folder, "Voxelwise encoder", note)
