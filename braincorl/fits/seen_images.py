"""Which images a fit has seen, told by fingerprints of their features as well as by their names.

Names alone can be wrong in both ways: other pictures may bear the same names, as in another person's feature file, and
a picture that was fitted may come back under a new name, to be scored as if it were new.
"""

import logging
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.features import FeatureTable, check_same_space
from braincorl.features.store.table import take_rows
from braincorl.fits.fitted import Fitted
from braincorl.priors.image_digests import image_digests

logger = logging.getLogger(__name__)

Names = npt.NDArray[np.str_]


def check_features_fit(fit: Fitted, table: FeatureTable) -> None:
    """Refuse features of another space than the fit's, or of other pictures under the names of its images.

    Raises
    ------
    InputError
        If their number, their provenance, or an image that the fit was made from differs.
    """
    _check_space(fit, table)
    if not _check_same_images(fit, table):
        _say_unstated(fit, table)


def check_space_fits(fit: Fitted, table: FeatureTable) -> None:
    """Refuse features of another space than the fit's.

    Raises
    ------
    InputError
        If their number or their provenance differs.
    """
    _check_space(fit, table)
    _say_unstated(fit, table)


def _check_space(fit: Fitted, table: FeatureTable) -> None:
    check_same_space(table.provenance, fit.config["features_provenance"], fit.title)
    if table.n_features != fit.encoder.coef_.shape[1]:
        raise InputError(
            f"the features have {table.n_features} columns but {fit.title} was made with "
            f"{fit.encoder.coef_.shape[1]}: embed the images with the same backbone."
        )


def _say_unstated(fit: Fitted, table: FeatureTable) -> None:
    """Say that features are taken on trust: their file states no network, the fit does."""
    network = fit.config["features_provenance"].get("backbone")
    if network is not None and "backbone" not in table.provenance:
        logger.warning(
            "the features do not say which network they are of: they are taken for those of '%s', which %s was made "
            "with",
            network,
            fit.title,
        )


def _check_same_images(fit: Fitted, table: FeatureTable) -> bool:
    """Refuse features that differ from the fit's where the images are called the same.

    Tells whether images of the fit are among them; encoders that keep no fingerprints of theirs are not checked.
    """
    here = set(table.image_ids.tolist())
    common = [name for name in fit.context if name in here]
    if not common or fit.encoder.image_digests_.size == 0:
        return False
    other = ~np.isin(_digests(table, common), fit.encoder.image_digests_)
    if other.any():
        raise InputError(
            f"{int(other.sum())} of {len(common)} images that {fit.title} was made from have other features "
            f"here, such as '{common[int(other.argmax())]}': pass the features that it was made with, or, if other "
            "pictures only share their names, rename these."
        )
    return True


class SameImages:
    """Refuses fits of several people whose images are called the same but have different features.

    Fits are given one after the other, and not kept; those whose encoders keep no fingerprints are not checked.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, str]] = {}

    def add(self, fit: Fitted) -> None:
        """Check a fit against those before.

        Raises
        ------
        InputError
            Saying how many of the shared images differ, and between which fits.
        """
        digests = fit.encoder.image_digests_
        if digests.size != len(fit.context):
            return
        own = dict(zip(fit.context, digests.tolist(), strict=True))
        shared = [name for name in own if name in self._known]
        other = [name for name in shared if self._known[name][0] != own[name]]
        if other:
            raise InputError(
                f"{len(other)} of {len(shared)} images of {fit.title} have other features than in "
                f"{self._known[other[0]][1]}, such as '{other[0]}': fit all people with the same features."
            )
        title = fit.title
        self._known |= {name: (digest, title) for name, digest in own.items()}


def seen_by(fit: Fitted, table: FeatureTable, image_ids: Names) -> npt.NDArray[np.bool_]:
    """Whether a fit has seen each image, under its name or under another (n_images,)."""
    by_name = np.isin(image_ids, fit.context)
    by_features = np.isin(_digests(table, image_ids), fit.encoder.image_digests_)
    renamed = by_features & ~by_name
    if renamed.any():
        logger.warning(
            "%d images have the features of images that the fit has seen, under other names such as '%s': they count "
            "as seen",
            int(renamed.sum()),
            image_ids[int(renamed.argmax())],
        )
    return by_name | by_features


def without_copies(table: FeatureTable, fitted: Names, scored: Names) -> Names:
    """Leave out, and say so, images to be scored whose features are those of a fitted image under another name.

    Parameters
    ----------
    table
        Features of all of them.
    fitted
        Images to fit on.
    scored
        Others, to score on.

    Returns
    -------
    ndarray of str
        Those of `scored` that are new.
    """
    copies = np.isin(_digests(table, scored), _digests(table, fitted))
    if copies.any():
        logger.warning(
            "%d of %d images to be scored have the same features as images that are fitted, such as '%s': they are "
            "left out of the score",
            int(copies.sum()),
            scored.size,
            scored[int(copies.argmax())],
        )
    return scored[~copies]


def _digests(table: FeatureTable, image_ids: Iterable[str]) -> npt.NDArray[np.int64]:
    return image_digests(take_rows(table.features, table.rows(image_ids)))
