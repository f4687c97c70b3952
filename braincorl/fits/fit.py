"""`Fit`: one person's fitted encoder with the voxels it belongs to, in memory or on disk.

dataset_description.json   BIDS derivative, with README.md
encoder.safetensors        weights, intercepts, noise, provenance
space.safetensors          mask, affine, voxels with data, regions
config.json                options, versions, counts
context.txt                images that the encoder was fitted on
scores.tsv                 scores of the images left out, per region; where there were any
sub-XX_stat-*_statmap.nii.gz and .json
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from braincorl import __version__
from braincorl.datasets import SubjectData
from braincorl.encoders import load_encoder
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.fits.exchange import Format, export, to_himalaya
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
from braincorl.fits.methods import MethodsText, describe_methods
from braincorl.fits.predictions import features_to_predict, save_predictions
from braincorl.fits.scored import Scored, score_fit
from braincorl.fits.scores import summarize_rois
from braincorl.storage.files import Progress, atomic_file, read_text, reading, text_lines, write_json
from braincorl.storage.result_folders import recover, staged_directory


class Fit(Fitted):
    """A person's fitted encoder, to be scored, asked for predictions, kept on disk; made by `fit_person`.

    Its attributes are those of `braincorl.fits.fitted.Fitted`: `encoder`, `space`, `rois`, `config`, `context`, `path`;
    and `subject`, `title`, `grid`, `maps()`, `scores`.
    """

    def predict(self, features: FeatureTable, images: Iterable[str] | None = None, *, return_std: bool = False) -> Any:
        """Predict responses to images.

        Parameters
        ----------
        features
            Of the fit's feature space.
        images
            Which, by name; by default all of the table's, in its order.
        return_std
            Also return the standard deviation of a measured response around its prediction.

        Returns
        -------
        y : ndarray of shape (n_images, n_voxels)
            In the units of the fitted responses.
        std : ndarray of the same shape
            Only with `return_std`.

        Raises
        ------
        InputError
            If the features are of another space, or differ from the fit's under the same names; if an image has none,
            or the encoder has no standard deviation.
        """
        return self.encoder.predict(features_to_predict(self, features, images)[1], return_std=return_std)

    def save_predictions(
        self,
        path: str | Path,
        features: FeatureTable,
        images: Iterable[str] | None = None,
        *,
        std: bool = False,
        notes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        outside: Outside = "nan",
        progress: Progress | None = None,
    ) -> int:
        """Write predicted responses as a series of volumes, a few images at a time.

        Parameters and errors are those of `predict` and `save`; `progress` is called with (volumes done, volumes).

        Returns
        -------
        int
            Number of images.
        """
        return save_predictions(
            self, path, features, images, std=std, notes=notes, overwrite=overwrite, outside=outside, progress=progress
        )

    def score(
        self,
        subject: SubjectData,
        features: FeatureTable,
        *,
        min_ceiling: float = 0.1,
        any_scaling: bool = False,
        n_permutations: int = 0,
        random_state: int = 0,
        notes: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Scored:
        """Score on images that the fit has not seen; those that it has, under whatever name, are left out.

        Parameters
        ----------
        subject
            Responses, read with the fit's mask: `load_subject(..., mask=fit.grid)`.
        features
            Of these images, of the fit's feature space.
        min_ceiling
            Noise-normalised scores are given where the noise ceiling of R² is at least this.
        any_scaling
            Allow responses that were scaled otherwise than the fit's.
        n_permutations
            Random orders of the images to test every voxel against (`braincorl.questions.permutation`); 0 for no test.
        random_state
            Seed of these.
        notes
            What `Scored.save` is to write into its config.json besides, such as where the responses come from.
        progress
            Of the test: called with (voxels done, voxels).

        Returns
        -------
        Scored
            With `maps`, `table()`, `save(folder)`.

        Raises
        ------
        InputError
            If features, voxels or scaling are not the fit's, or fewer than two images are new to it.
        """
        return score_fit(
            self,
            subject,
            features,
            min_ceiling=min_ceiling,
            any_scaling=any_scaling,
            n_permutations=n_permutations,
            random_state=random_state,
            notes=notes,
            progress=progress,
        )

    def methods(self, scores: str | Path | None = None) -> MethodsText:
        """Write the paragraph for a paper: what this fit did, with its numbers, and what to cite.

        Parameters
        ----------
        scores
            Folder of `Scored.save` or `braincorl score`; by default `scores` in the fit's folder, else the fit's own.

        Returns
        -------
        MethodsText
            Prints as plain text; has `paragraphs` and `references`.

        Raises
        ------
        InputError
            If the folder holds no scores of this fit.
        """
        return describe_methods(self, None if scores is None else Path(scores))

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

    def export(self, path: str | Path, *, format: Format = "npz", overwrite: bool = False, **about: str) -> Path:
        """Write plain arrays and a model card for others: see `braincorl.fits.exchange.export`."""
        return export(self, path, format=format, overwrite=overwrite, **about)

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
