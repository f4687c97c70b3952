"""Accuracy against the number of context images, for several encoders, on the same contexts and test images."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone

from braincorl.encoders.base import LinearEncoder
from braincorl.encoders.limits import AtLimit, choices_at_limit, mean_limits, tell_limits
from braincorl.errors import InputError
from braincorl.fits.scores import predict_exactly, summarize_rois
from braincorl.metrics import explained_variance, mean_over_voxels, pearson_r
from braincorl.storage.files import Progress, ProgressCounter
from braincorl.validation import check_pair

logger = logging.getLogger(__name__)

Makers = Mapping[str, LinearEncoder | Callable[[], LinearEncoder]]
Array = npt.NDArray[np.floating[Any]]

N_BOOTSTRAP = 500  # samples of the intervals of regions, over voxels and draws


def scaling_curve(
    encoders: Makers,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    counts: Sequence[int],
    n_draws: int = 5,
    *,
    X_test: npt.ArrayLike,
    y_test: npt.ArrayLike,
    X_pool: npt.ArrayLike | None = None,
    fit_arguments: Mapping[str, Mapping[str, Any]] | None = None,
    random_state: int = 0,
    progress: Progress | None = None,
    keep: Callable[[str, int, Array], None] | None = None,
) -> pd.DataFrame:
    """Fit every encoder on growing contexts, and score it on test images.

    The contexts of one draw are nested, and the same for every encoder.

    Parameters
    ----------
    encoders
        Name -> encoder (cloned for every fit) or a function that makes one.
    X, y
        Features (n_images, n_features) and responses (n_images, n_voxels) that contexts are drawn from.
    counts
        Numbers of context images, each between 2 and n_images. At n_images itself there is one context: one draw.
    n_draws
        Random contexts per number.
    X_test, y_test
        Images to score on, none of them in `X`; `y_test` may be the noise-free truth of a simulation.
    X_pool
        Features of any images but the test's, for encoders that learn the feature space's scale; by default `X`.
    fit_arguments
        Encoder name -> further arguments of its `fit`, such as {"group-prior": {"rois": labels}}.
    random_state
        Seed of the first draw; draw i has seed `random_state` + i.
    progress
        Called with (fits done, fits).
    keep
        Called after every fit with the encoder's name, the number of images, and the EV of every voxel (n_voxels,).

    Returns
    -------
    pandas.DataFrame
        One row per encoder, number and draw: `encoder`, `n_context`, `draw`, `ev`, `r` (means over voxels, those of
        constant response left out), `seconds` (of the fit).

    Raises
    ------
    InputError
        If shapes do not match, a number of images is impossible, or there is no draw.
    """
    features, responses, tests = np.asarray(X), np.asarray(y), np.asarray(X_test)
    check_pair(features, responses)
    numbers = sorted(set(counts))
    if not numbers or numbers[0] < 2 or numbers[-1] > len(features) or n_draws < 1 or not encoders:
        raise InputError(
            f"counts is {list(counts)}, n_draws {n_draws}, with {len(encoders)} encoders: expected numbers between 2 "
            f"and the {len(features)} images, at least one draw and one encoder."
        )
    pool = features if X_pool is None else np.asarray(X_pool)
    jobs = [(draw, n) for draw in range(n_draws) for n in numbers if draw == 0 or n < len(features)]
    counter, rows = ProgressCounter(len(jobs) * len(encoders), progress), []
    limits: dict[str, list[list[AtLimit]]] = {name: [] for name in encoders}
    for draw, n in jobs:
        context = np.random.default_rng(random_state + draw).permutation(len(features))[:n]
        for name, maker in encoders.items():
            encoder = made(maker)
            arguments = dict((fit_arguments or {}).get(name, {}))
            if encoder.uses_pool:
                arguments.setdefault("X_pool", pool)
            start = time.perf_counter()
            encoder.fit(features[context], responses[context], **arguments)
            seconds = time.perf_counter() - start
            if n == numbers[-1]:  # with few images most choices are uncertain; what counts is where they lead
                limits[name].append(choices_at_limit(encoder))
            predicted = predict_exactly(encoder, tests).reshape(len(tests), *responses.shape[1:])
            ev, r = explained_variance(y_test, predicted), pearson_r(y_test, predicted)
            rows.append((name, n, draw, mean_over_voxels(ev), mean_over_voxels(r), seconds))
            if keep is not None:
                keep(name, n, ev)
            counter.add(1)
    for name, found in limits.items():
        if told := tell_limits(mean_limits(found)):
            logger.warning("%s with %d images: %s", name, numbers[-1], told)
    return pd.DataFrame(rows, columns=["encoder", "n_context", "draw", "ev", "r", "seconds"])


def made(maker: LinearEncoder | Callable[[], LinearEncoder]) -> LinearEncoder:
    """Make an unfitted encoder of one, or of a function that makes them."""
    encoder: LinearEncoder = clone(maker) if isinstance(maker, LinearEncoder) else maker()
    return encoder


def summarize_regions(
    ev: Mapping[tuple[str, int], Sequence[Array]], rois: Mapping[str, npt.NDArray[np.bool_]]
) -> pd.DataFrame:
    """Mean EV per region, with bootstrap intervals over voxels and draws.

    Parameters
    ----------
    ev
        (encoder, number of images) -> EV of every voxel (n_voxels,), one array per draw.
    rois
        Region name -> bool (n_voxels,).

    Returns
    -------
    pandas.DataFrame
        One row per encoder, number of images and region ("all" first): `encoder`, `n_context`, `roi`, `n_voxels`,
        `ev_mean`, `ev_low`, `ev_high` (95 %).
    """
    tables = []
    for (name, n), draws in ev.items():
        table = summarize_rois({"ev": np.stack(draws)}, rois, N_BOOTSTRAP)
        tables.append(table[["roi", "n_voxels", "ev_mean", "ev_low", "ev_high"]].assign(encoder=name, n_context=n))
    together = pd.concat(tables, ignore_index=True)
    return together[["encoder", "n_context", "roi", "n_voxels", "ev_mean", "ev_low", "ev_high"]]


def summarize_curve(curve: pd.DataFrame, value: str) -> pd.DataFrame:
    """Table of mean ± standard deviation over draws: one row per encoder, one column per number of images.

    Parameters
    ----------
    curve
        Of `scaling_curve`.
    value
        Column to summarise, such as "ev".

    Returns
    -------
    pandas.DataFrame
        Text; one draw has no ±.
    """
    spread = curve.groupby(["encoder", "n_context"], sort=False)[value].agg(["mean", "std", "size"])
    cells = {
        index: f"{row['mean']:.3f}" + (f" ± {row['std']:.3f}" if row["size"] > 1 else "")
        for index, row in spread.iterrows()
    }
    names, numbers = list(dict.fromkeys(curve["encoder"])), sorted(curve["n_context"].unique())
    rows = [[name, *(cells.get((name, n), "") for n in numbers)] for name in names]
    return pd.DataFrame(rows, columns=[f"{value}, by context images", *map(str, numbers)])
