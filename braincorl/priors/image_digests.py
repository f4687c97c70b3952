"""Which images were seen, told by fingerprints of their features, so that no list of names has to travel."""

import hashlib

import numpy as np
import numpy.typing as npt

from braincorl.validation import FloatArray

NO_IMAGES = np.empty(0, dtype=np.int64)  # of what does not say which images it has seen


def image_digests(X: FloatArray) -> npt.NDArray[np.int64]:
    """Fingerprint of each image's features, in single precision.

    Parameters
    ----------
    X
        Features (n, p).

    Returns
    -------
    ndarray of shape (n,)
    """
    with np.errstate(over="ignore"):  # features beyond single precision are told apart by the others, if at all
        rows = np.ascontiguousarray(X, dtype=np.float32) + np.float32(0)  # -0 becomes 0
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)
