"""Answers of a query on disk: maps with BIDS names, one set per text."""

import re
from collections.abc import Sequence
from pathlib import Path

from braincorl import __version__
from braincorl.analysis.words.selectivity import TextSelectivity
from braincorl.datasets.space import VoxelSpace
from braincorl.files import GENERATOR
from braincorl.fits.folder import check_prefix
from braincorl.fits.maps import Outside, save_map

LONGEST_LABEL = 60  # of a file's name, which BIDS entities and ending make longer; systems end at 255 bytes

# Map name -> (attribute of the result, what it is, unit).
MAPS = {
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


def write_query_maps(
    folder: Path,
    prefix: str,
    result: TextSelectivity,
    space: VoxelSpace,
    versus: Sequence[str] = (),
    outside: Outside = "nan",
) -> list[Path]:
    """Write the maps of every text, with sidecars that name it.

    Parameters
    ----------
    folder
        Existing folder.
    prefix
        BIDS entities that the names begin with, such as `sub-01_task-images`.
    result
        Of `text_selectivity`.
    space
        Where the voxels are.
    versus
        What the texts were contrasted with.
    outside
        What voxels outside the mask get.

    Returns
    -------
    list of Path
    """
    check_prefix(prefix)
    labels = text_labels([f"{text} versus {' and '.join(versus)}" if versus else text for text in result.texts])
    paths = []
    for column, (text, label) in enumerate(zip(result.texts, labels, strict=True)):
        for name, (attribute, description, unit) in MAPS.items():
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
