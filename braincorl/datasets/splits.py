"""Images to learn from and images to test on. Repeats of an image are averaged first, so none can straddle a split."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from braincorl.datasets.subject import SubjectData
from braincorl.errors import InputError


class Split(NamedTuple):
    """Images to learn from and images to test on, without an image in both."""

    own: npt.NDArray[np.str_]
    test: npt.NDArray[np.str_]


def split_repeated(subject: SubjectData, min_repeats: int = 2) -> Split:
    """Test on the images that were shown several times, learn from the others.

    Parameters
    ----------
    subject
        The person.
    min_repeats
        Trials that a test image has at least.

    Returns
    -------
    Split

    Raises
    ------
    InputError
        If no image, or every image, was shown that often.
    """
    often = subject.n_repeats >= min_repeats
    if not often.any() or often.all():
        raise InputError(
            f"{int(often.sum())} of {subject.name}'s {subject.n_images} images have {min_repeats} trials or more: "
            "choose min_repeats so that some images have and others have not."
        )
    return Split(subject.image_ids[~often], subject.image_ids[often])
