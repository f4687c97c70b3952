"""`fit_person`: one person's responses and image features to a `Fit`, with scores of the images left out.

    fit = fit_person(subject, features, "in-context", context=100)

chooses the context (n_context images), fits the encoder on it, and scores it on those left over, whose features and
responses enter nothing before.
"""

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets import SubjectData
from braincorl.datasets.file_names import UNNAMED, without_endings
from braincorl.encoders import LinearEncoder
from braincorl.encoders.banded_ridge import BandedRidgeEncoder
from braincorl.encoders.choice import NETWORK_ENCODER, SPACES_ENCODER, encoder_name, make_encoder
from braincorl.encoders.limits import choices_at_limit, tell_limits
from braincorl.errors import InputError
from braincorl.features import FeatureTable, check_same_space, join_tables
from braincorl.features.store.table import SPACES, take_rows
from braincorl.fits.fit import Fit
from braincorl.fits.folder import hash_responses
from braincorl.fits.scores import score_encoder
from braincorl.fits.seen_images import without_copies
from braincorl.metrics import trials_per_image
from braincorl.priors.group_prior import GroupPrior, load_prior
from braincorl.priors.image_digests import image_digests
from braincorl.priors.regions import label_voxels
from braincorl.storage.files import Progress

logger = logging.getLogger(__name__)

Names = npt.NDArray[np.str_]
Context = Sequence[str] | Names | int | None


def fit_person(
    subject: SubjectData,
    features: FeatureTable | Mapping[str, FeatureTable],
    encoder: str | LinearEncoder | None = None,
    *,
    context: Context = None,
    random_state: int = 0,
    prefix: str | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Fit a voxelwise encoder to one person, and score it on the images left over.

    Parameters
    ----------
    subject
        Responses, as `load_subject` gives them.
    features
        Of at least these images; the others serve encoders that learn the feature space's scale. Or several feature
        spaces, name -> features.
    encoder
        A name ("in-context", "bayesian-ridge", "banded-ridge", "ridge"), or an encoder, which is fitted. By default
        "in-context", and "banded-ridge" for several feature spaces, which others read as one.
    context
        Images to fit on: their names, a number of them to be drawn at random, or None for all.
    random_state
        Seed of that draw.
    prefix
        BIDS entities that the names of maps begin with; by default the person's label.
    notes
        What config.json is to say besides, JSON-serialisable, such as where the responses come from.
    progress
        Called with (voxels done, voxels), by encoders that say.

    Returns
    -------
    Fit
        With `scores` if at least 2 images were left over, none of them a copy of one that was fitted.

    Raises
    ------
    InputError
        If the context is impossible, an image has no features, all features are the same, or the encoder's prior is of
        another feature space.
    """
    features = join_tables(features) if isinstance(features, Mapping) else features
    spaces = features.provenance.get(SPACES, {})
    encoder = encoder or (SPACES_ENCODER if spaces else NETWORK_ENCODER)
    encoder = make_encoder(encoder) if isinstance(encoder, str) else encoder
    if isinstance(encoder, BandedRidgeEncoder) and spaces and encoder.spaces is None:
        encoder.set_params(spaces={name: made["n_features"] for name, made in spaces.items()})
    subject = _with_features(subject, features)
    chosen = _choose_context(subject.image_ids, context, random_state)
    left_out = without_copies(features, chosen, subject.image_ids[~np.isin(subject.image_ids, chosen)])
    prior = getattr(encoder, "prior", None)
    memory = None if prior is None else load_prior(prior)
    if memory is not None:
        _tell_own_memory(memory, subject, features, left_out)
    _fit_encoder(encoder, subject, features, chosen, left_out, progress)
    if limits := tell_limits(choices_at_limit(encoder)):
        logger.warning("%s: %s", subject.name, limits)
    maps: dict[str, npt.NDArray[Any]] = {}
    if left_out.size >= 2:
        held_out = subject.select_images(left_out)
        maps |= score_encoder(encoder, subject.space, features.features[features.rows(left_out)], held_out)
    elif (ceiling := subject.noise_ceiling()) is not None:
        maps["noiseceiling"] = ceiling
    n_repeats = subject.n_repeats[np.isin(subject.image_ids, chosen)]
    config = {
        "subject": subject.name,
        "prefix": prefix or subject.name,
        "encoder": encoder_name(encoder),
        "zscore": subject.zscore,
        "features_provenance": dict(features.provenance),
        "n_features": features.n_features,
        "random_state": random_state if isinstance(context, int) else None,
        "n_context": int(chosen.size),
        "trials_per_image": trials_per_image(n_repeats),
        "n_trials": int(n_repeats.sum()),
        "n_left_out": int(left_out.size),
        "n_voxels": subject.n_voxels,
        "n_excluded_voxels": subject.space.n_excluded,
        "responses_sha256": hash_responses(subject.responses),
        **({} if memory is None else _remembered(memory)),
        "versions": {name: version(name) for name in ("numpy", "scipy", "scikit-learn")},
        **(notes or {}),
    }
    return Fit(encoder, subject.space, dict(subject.rois), config, chosen.tolist(), kept_maps=maps)


def _fit_encoder(
    encoder: LinearEncoder,
    subject: SubjectData,
    table: FeatureTable,
    context: Names,
    left_out: Names,
    progress: Progress | None,
) -> None:
    features, responses = table.features[table.rows(context)], subject.select_images(context).responses
    check_features_vary(features)
    precision = getattr(encoder, "precision", None)
    # Encoders compute in the wider type of the two. Without a wish it is that of the responses, by far the larger.
    dtype = precision if precision in ("float32", "float64") else responses.dtype
    features, responses = (array.astype(dtype, copy=False) for array in (features, responses))
    arguments = fit_arguments(encoder, table, subject)
    if encoder.uses_pool:
        arguments["X_pool"] = pool_without(table, left_out)
    if encoder.reports_progress:
        arguments["progress"] = progress
    encoder.fit(features, responses, **arguments)


def _tell_own_memory(prior: GroupPrior, subject: SubjectData, table: FeatureTable, left_out: Names) -> None:
    """Say that an encoder's prior may know the very responses that it is scored on."""
    people = prior.provenance.get("people", ())
    if not left_out.size or subject.name == UNNAMED or subject.name not in people:
        return
    known = np.isin(image_digests(take_rows(table.features, table.rows(left_out))), prior.image_digests)
    if known.any() or not prior.image_digests.size:
        logger.warning(
            "the prior remembers a person called %s, with %s of the %d images to be scored: if that is this person, "
            "the scores are too good",
            subject.name,
            int(known.sum()) if prior.image_digests.size else "perhaps some",
            left_out.size,
        )


def _remembered(prior: GroupPrior) -> dict[str, Any]:
    """Whose voxels an encoder remembers: the encoder's file keeps what they said, and not how many there were."""
    people = prior.summary
    known = {"n_people": people.get("n_people"), "n_voxels": sum(people.get("n_voxels", []))}
    return {"memory": known} if all(known.values()) else {}


def _with_features(subject: SubjectData, table: FeatureTable) -> SubjectData:
    known = np.isin(subject.image_ids, table.image_ids)
    if known.all():
        return subject
    logger.warning("%d of %d images have no features and are left out", int((~known).sum()), known.size)
    return subject.select_images(subject.image_ids[known])


def _choose_context(image_ids: Names, context: Context, random_state: int = 0) -> Names:
    """Images to fit on, at least 2: those named, a number drawn at random, or all."""
    if isinstance(context, int):
        if not 2 <= context <= image_ids.size:
            raise InputError(
                f"context asks for {context} images, but must be between 2 and {image_ids.size}, the images at hand."
            )
        # Drawn from the sorted names, so that the order of trials does not decide who is drawn.
        names = np.sort(image_ids)
        return names[np.sort(np.random.default_rng(random_state).permutation(names.size)[:context])]
    named = image_ids.tolist() if context is None else list(map(str, context))
    found = without_endings(named, image_ids.tolist())
    named = [found.get(name, name) for name in named]
    chosen = np.asarray(list(dict.fromkeys(named)), dtype=np.str_)
    if len(named) > chosen.size:
        logger.warning("context names %d images more than once: each counts once", len(named) - chosen.size)
    missing = sorted(set(chosen.tolist()) - set(image_ids.tolist()))
    if missing:
        raise InputError(
            f"context names {len(missing)} images without both responses and features, such as '{missing[0]}': "
            "remove them from the list."
        )
    if chosen.size < 2:
        raise InputError(f"there is {chosen.size} image to fit on, but an encoder needs at least 2: add images.")
    return chosen


def check_features_vary(features: npt.NDArray[Any]) -> None:
    """Refuse features that tell no image from another, and say so where each image has a feature of its own.

    Raises
    ------
    InputError
        If all rows are the same.
    """
    if len(features) > 1 and not np.ptp(features, axis=0).any():
        raise InputError(
            f"the features of all {len(features)} images are the same, so nothing can be predicted from them: check "
            "what was embedded."
        )
    if (np.count_nonzero(features, axis=1) == 1).all() and (np.count_nonzero(features, axis=0) <= 1).all():
        logger.warning(
            "every image has a feature that no other image has (one-hot features): nothing that is learned from some "
            "images can be carried over to others"
        )


def pool_without(table: FeatureTable, left_out: Names) -> npt.NDArray[np.floating[Any]]:
    """Features of all images but those left out; the table's own, not a copy, if all stay."""
    if left_out.size == 0:
        return table.features
    return take_rows(table.features, np.flatnonzero(~np.isin(table.image_ids, left_out)))


def fit_arguments(encoder: LinearEncoder, table: FeatureTable, subject: SubjectData) -> dict[str, Any]:
    """Further arguments of an encoder's `fit`: places and regions of the voxels, where its prior knows such.

    Raises
    ------
    InputError
        If the prior is of another feature space.
    """
    if getattr(encoder, "prior", None) is None:
        return {}
    prior = load_prior(encoder.prior)
    check_same_space(table.provenance, prior.provenance, "the prior")
    more: dict[str, Any] = {}
    if isinstance(encoder, BandedRidgeEncoder):  # reads no single voxels, so that places and regions tell it nothing
        return more
    if prior.positions is not None:
        more["positions"] = subject.space.coordinates()
    if not subject.rois or not prior.regions:
        return more
    if not set(subject.rois) & set(prior.regions):
        logger.warning(
            "the prior knows the regions %s but not %s: fitting without regions",
            ", ".join(prior.regions),
            ", ".join(sorted(subject.rois)),
        )
    known = {name: members for name, members in subject.rois.items() if name in prior.regions}
    return more | {"rois": label_voxels(known, subject.n_voxels)}
