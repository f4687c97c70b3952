"""What a fit answers: maps per text, the voxels and regions it selects, images and words that drive them; its folder.

query = query_words(fit, ["face", "place"], words=load_features("words.npz"))
answers = ask_fit(fit, query, own_pool(fit))
answers.save("asked")
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl import __version__
from braincorl.analysis.words.query_selection import (
    localizer_accuracy,
    preferred_images,
    preferred_texts,
    selection_by_roi,
    top_voxels,
)
from braincorl.analysis.words.questions_in_words import Query
from braincorl.analysis.words.selectivity import TextSelectivity, text_selectivity
from braincorl.datasets.space import VoxelSpace
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.fits import Fit
from braincorl.fits.folder import check_prefix, write_description
from braincorl.fits.maps import Outside, save_map
from braincorl.storage.files import GENERATOR, write_json
from braincorl.storage.result_folders import staged_directory

Rois = Mapping[str, npt.NDArray[np.bool_]]

LONGEST_LABEL = 60  # of a file's name, which BIDS entities and ending make longer; systems end at 255 bytes

# Map name -> (attribute of the result, what it is, unit).
ANSWER_MAPS = {
    "selectivity": (
        "selectivity",
        "Predicted response to an image that is more like the text, from its mean over images",
        "standard deviations of the voxel's predicted responses over images",
    ),
    "z": ("z", "Selectivity over its uncertainty", "standard deviations"),
    "q": ("q_value", "How likely the voxel is to be selected wrongly", "1"),
}

SIGNIFICANCE = {
    "posterior": "z is posterior mean over posterior standard deviation of the voxel's weights along the text",
    "directions": "z compares the text with random texts of the same spread, and says nothing on the weights' noise",
}


@dataclass(frozen=True)
class Answers:
    """What `ask_fit` found.

    Attributes
    ----------
    fit
        That was asked.
    query
        What it was asked.
    results
        Selectivity, and what the texts were contrasted with ("" for texts in general).
    tables
        "selection", "voxels", and where they are known "accuracy", "images", "words".
    rois
        Regions that the tables name.
    q
        Share of wrongly selected voxels to accept.
    """

    fit: Fit
    query: Query
    results: list[tuple[TextSelectivity, str]]
    tables: dict[str, pd.DataFrame]
    rois: Rois
    q: float

    def __str__(self) -> str:
        """One line per text: how many voxels it selects, and the regions with the largest share of them."""
        return "\n".join(line for result, versus in self.results for line in self._lines(result, versus))

    def _lines(self, result: TextSelectivity, versus: str) -> list[str]:
        selected, lines = result.selected(self.q), []
        for column, text in enumerate(result.texts):
            shares = {name: float(selected[m, column].mean()) for name, m in self.rois.items() if m.any()}
            best = sorted((name for name in shares if shares[name] > 0), key=lambda name: -shares[name])[:3]
            where = f", most of {', '.join(f'{name} ({shares[name]:.0%})' for name in best)}" if best else ""
            asked = f"{text} versus {versus}" if versus else text
            n_selected = int(selected[:, column].sum())
            lines.append(f"{asked}: {n_selected} of {len(selected)} voxels selected (q < {self.q:g}){where}")
        return lines

    def save(
        self,
        path: str | Path,
        *,
        notes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        outside: Outside = "nan",
    ) -> None:
        """Write maps, tables and config.json to a folder, whole or not at all.

        Parameters
        ----------
        path
            Folder that does not exist yet, or (with `overwrite`) holds earlier answers.
        notes
            What config.json is to say besides, JSON-serialisable.
        overwrite
            Replace earlier answers.
        outside
            What voxels outside the mask get in maps.

        Raises
        ------
        OutputError
            If the folder is taken or cannot be written; nothing has changed then.
        """
        fit, query = self.fit, self.query
        with staged_directory(path, overwrite=overwrite, kind="query") as folder:
            for result, versus in self.results:
                opposed = query.versus if versus else ()
                _write_query_maps(folder, fit.config["prefix"], result, fit.space, opposed, outside)
            for name, table in self.tables.items():
                table.to_csv(folder / f"{name}.tsv", sep="\t", index=False, na_rep="n/a", float_format="%.5g")
            config = {
                "braincorl": __version__,
                **fit.identity(),
                "feature_space": fit.config.get("feature_space"),
                "texts": query.texts,
                "versus": query.versus,
                **(notes or {}),
                "text_provenance": dict(query.source),
                "n_background": len(query.background),
                "significance": self.results[0][0].significance,
                "q": self.q,
            }
            write_json(folder / "config.json", config)
            write_description(folder, "Selectivity of voxels for texts")


def ask_fit(
    fit: Fit,
    query: Query,
    pool: FeatureTable | None = None,
    *,
    rois: Rois | None = None,
    localizers: Mapping[str, Sequence[str]] | None = None,
    q: float = 0.05,
    top: int = 20,
    words_by: Literal["selectivity", "specificity"] = "selectivity",
    significance: Literal["auto", "posterior", "directions"] = "auto",
) -> Answers:
    """Ask what a fit's voxels respond to.

    Parameters
    ----------
    fit
        The fit.
    query
        Of `query_words` or `query_images`.
    pool
        Features of images of all kinds, to scale by and to list, such as `own_pool(fit)`.
    rois
        Region name -> bool (n_voxels,); by default the fit's.
    localizers
        Text -> regions that it should find, to be scored.
    q
        Share of wrongly selected voxels to accept.
    top
        Voxels and images to list.
    words_by
        Order of the table of words: what drives a region most, or more than the fit's other voxels.
    significance
        "posterior": is the sign settled by the context; "directions": more than a random text; "auto": the first where
        the encoder has a posterior.

    Returns
    -------
    Answers
        With `tables`, `save(folder)`; prints as a line per text.

    Raises
    ------
    InputError
        If `q` is impossible, or a localiser names what was not asked or no region.
    """
    if not 0 < q < 1:
        raise InputError(f"q must be between 0 and 1, but is {q}.")
    rois, images = fit.rois if rois is None else rois, None if pool is None else pool.features

    def ask(opposite: npt.NDArray[Any] | None) -> TextSelectivity:
        return text_selectivity(
            fit.encoder,
            query.features,
            images,
            versus=opposite,
            background=query.background,
            texts=query.texts,
            significance=significance,
        )

    plain = ask(None)
    tables = {"accuracy": localizer_accuracy(plain, localizers, rois, q)} if localizers else {}
    results = [(plain, "")]
    if query.versus:
        results.append((ask(query.versus_features), ", ".join(query.versus)))
    found = {
        "selection": pd.concat([_with_versus(selection_by_roi(result, rois, q), v) for result, v in results]),
        "voxels": pd.concat([_with_versus(top_voxels(result, rois, fit.space, top), v) for result, v in results]),
        **tables,
    }
    if pool is not None:
        selected = plain.selected(q)
        groups = {f"selected by {text}": selected[:, column] for column, text in enumerate(plain.texts)}
        found["images"] = preferred_images(fit.encoder, pool.features, pool.image_ids, {**rois, **groups}, top)
    if (names := query.background_names) is not None:
        found["words"] = preferred_texts(fit.encoder, query.background, names, rois, images, top, words_by)
    return Answers(fit, query, results, found, rois, q)


def _with_versus(table: pd.DataFrame, versus: str) -> pd.DataFrame:
    table.insert(1, "versus", versus or "n/a")
    return table


def _write_query_maps(
    folder: Path,
    prefix: str,
    result: TextSelectivity,
    space: VoxelSpace,
    versus: Sequence[str] = (),
    outside: Outside = "nan",
) -> list[Path]:
    """Write the maps of every text, with sidecars that name it and what it was contrasted with; gives the files."""
    check_prefix(prefix)
    labels = text_labels([f"{text} versus {' and '.join(versus)}" if versus else text for text in result.texts])
    paths = []
    for column, (text, label) in enumerate(zip(result.texts, labels, strict=True)):
        for name, (attribute, description, unit) in ANSWER_MAPS.items():
            sidecar = {
                "Description": f"{description}; {SIGNIFICANCE[result.significance]}",
                "Units": unit,
                "Text": text,
                "Versus": list(versus) or "texts in general",
                "Software": f"{GENERATOR} {__version__}",
            }
            path = folder / f"{prefix}_stat-{name}_desc-{label}_statmap.nii.gz"
            paths.append(save_map(getattr(result, attribute)[:, column], space, path, sidecar, outside))
    return paths


def text_labels(texts: Sequence[str]) -> list[str]:
    """Turn texts into distinct BIDS labels of letters and digits, such as `aPhotoOfAFace`.

    Parameters
    ----------
    texts
        Any texts.

    Returns
    -------
    list of str
        Numbered where two would be the same, or nothing is left of one.
    """
    labels: list[str] = []
    taken: set[str] = set()
    for text in texts:
        words = re.findall(r"[A-Za-z0-9]+", text)
        label = "".join(word if number == 0 else word[0].upper() + word[1:] for number, word in enumerate(words))
        label = base = label[:LONGEST_LABEL] or "text"
        number = 2
        while label.lower() in taken:  # some file systems do not tell case apart
            label, number = f"{base}{number}", number + 1
        taken.add(label.lower())
        labels.append(label)
    return labels
