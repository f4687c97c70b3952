"""`few_shot_curve`: each person as if new, fitted from few images with the others remembered.

It is the protocol of the paper as one command: of a cohort of fits, one person is left out, the others' voxels become
the memory, and accuracy is measured against the number of images, on images that neither the person's contexts nor any
of the others' fits have seen. Beside it, the same encoder without a memory, and ridge averaged by evidence.

References
----------
Yu et al., Meta-Learning an In-Context Transformer Model of Human Higher Visual Cortex, NeurIPS 2025.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braincorl import __version__
from braincorl.analysis.scaling import scaling_curve
from braincorl.cohort.people import Person
from braincorl.cohort.task import FitOptions, Outcome, collected, failure, person_features, read_responses
from braincorl.encoders import BayesianRidgeEncoder, GroupPriorEncoder, LinearEncoder
from braincorl.encoders.choice import make_network_encoder
from braincorl.errors import InputError
from braincorl.features.store.feature_files import read_names
from braincorl.fits.earlier.one_by_one import load_fits
from braincorl.fits.earlier.remembering import remember_fits
from braincorl.fits.fitting import fit_arguments, pool_without
from braincorl.fits.folder import hash_responses
from braincorl.priors.image_digests import image_digests
from braincorl.storage.files import read_json, write_json
from braincorl.storage.result_folders import holds_result, staged_directory
from braincorl.storage.tensorfile import read_metadata
from braincorl.threads import limited_threads

CURVE = "curve.tsv"
TEST_SHARE = 0.25  # of a person's images that nobody else's fit has seen
MEMORY, ALONE, RIDGE = "with the others' voxels", "in-context, alone", "Bayesian ridge, alone"


@dataclass(frozen=True)
class FewShot:
    """What accuracy is measured at.

    Attributes
    ----------
    counts
        Numbers of context images.
    n_draws
        Random contexts of each.
    test
        Text file with images to score on; by default a random quarter of those that no other person's fit has seen.
    rois, places
        Whether regions, or places, are remembered and known of the new person; regions by default if all people have
        some.
    random_state
        Seed of the draws.
    n_people
        Left out are so many people, drawn at random, and not everybody: the work is the square of the people.
    """

    counts: tuple[int, ...]
    n_draws: int = 5
    test: Path | None = None
    rois: bool | None = None
    places: bool = False
    random_state: int = 0
    n_people: int | None = None

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 2 or self.n_draws < 1:
            raise InputError(
                f"counts are {list(self.counts)}, draws {self.n_draws}: expected at least 2 images, 1 draw."
            )
        if self.n_people is not None and self.n_people < 1:
            raise InputError(f"n_people is {self.n_people}, expected at least 1 person to leave out.")

    def choose(self, names: Sequence[str]) -> list[str]:
        """Say who of these is left out in turn: everybody, or a random sample; in their order."""
        if self.n_people is None or self.n_people >= len(names):
            return list(names)
        # Drawn from the sorted names, so that the order of a table does not decide who is drawn.
        drawn = set(np.random.default_rng(self.random_state).permutation(np.sort(names))[: self.n_people].tolist())
        return [name for name in names if name in drawn]

    def identity(self) -> list[Any]:
        """Say what the curves of a group depend on, JSON-serialisable."""
        return [list(self.counts), self.n_draws, self.random_state, self.n_people]


@dataclass(frozen=True)
class FewShotTask:
    """One person left out.

    Attributes
    ----------
    person, options
        Whose responses, read as they were for the fit.
    others
        Folders of the other people's fits.
    protocol
        What is measured.
    folder
        Where the curve goes: a folder of the person's name in it.
    """

    person: Person
    options: FitOptions
    others: tuple[Path, ...]
    protocol: FewShot
    folder: Path

    @property
    def name(self) -> str:
        """BIDS label of the person."""
        return self.person.name

    def identity(self) -> dict[str, Any]:
        """Everything that the curve depends on, JSON-serialisable, to tell whether it is there already."""
        fits = {path.name: read_metadata(path / "encoder.safetensors")["sha256"] for path in self.others}
        made = {name: getattr(self.protocol, name) for name in ("n_draws", "rois", "places", "random_state")}
        test = None if self.protocol.test is None else str(self.protocol.test)
        return {"braincorl": __version__, "counts": list(self.protocol.counts), "test": test, **made, "others": fits}


def few_shot_curve(task: FewShotTask) -> Outcome:
    """Measure one person's curve and write it; never raises what is about this person alone.

    Parameters
    ----------
    task
        Who is left out.

    Returns
    -------
    Outcome
    """
    target, lines = task.folder / task.name, list[str]()
    try:
        with collected(lines):
            identity = task.identity()
            if holds_result(target, "few-shot"):
                made = read_json(target / "config.json")
                if all(made.get(name) == value for name, value in identity.items()):
                    return Outcome(task.name, "kept")
            with limited_threads(task.options.threads, torch=True):
                curve, facts = _measure(task)
            with staged_directory(target, overwrite=True, kind="few-shot") as folder:
                curve.to_csv(folder / CURVE, sep="\t", index=False, na_rep="n/a")
                write_json(folder / "config.json", {**identity, **facts})
    except Exception as error:
        return failure(task.name, error, lines)
    return Outcome(task.name, "fitted", f"few-shot curve on {facts['n_test']} images", tuple(lines))


def _measure(task: FewShotTask) -> tuple[pd.DataFrame, dict[str, Any]]:
    options, protocol = task.options.of(task.person), task.protocol
    table = person_features(task.name, options)
    subject = read_responses(task.name, task.person.files(), options, table)
    prior = remember_fits(load_fits(task.others), rois=bool(protocol.rois), places=protocol.places, table=table)
    if not prior.image_digests.size:
        raise InputError("a fit of another person does not know which images it has seen: fit everybody again.")
    X = table.features[table.rows(subject.image_ids)]
    new = ~np.isin(image_digests(X), prior.image_digests)
    test = choose_test(subject.image_ids, new, protocol)
    rows = np.isin(subject.image_ids, test)
    own = ~rows & ~np.isin(image_digests(X), image_digests(X[rows]))  # no copies of the test's under other names
    if own.sum() < max(protocol.counts):
        raise InputError(
            f"{task.name} has {int(own.sum())} images beside the {int(rows.sum())} to score on, but the largest "
            f"context is of {max(protocol.counts)}: ask for fewer (--few-shot)."
        )
    makers: dict[str, LinearEncoder | Callable[[], LinearEncoder]] = {
        MEMORY: lambda: GroupPriorEncoder(prior, device="cpu"),
        ALONE: lambda: make_network_encoder(device="cpu"),
        RIDGE: BayesianRidgeEncoder,
    }
    curve = scaling_curve(
        makers,
        X[own],
        subject.responses[own],
        protocol.counts,
        protocol.n_draws,
        X_test=X[rows],
        y_test=subject.responses[rows],
        X_pool=pool_without(table, test),
        fit_arguments={MEMORY: fit_arguments(GroupPriorEncoder(prior, device="cpu"), table, subject)},
        random_state=protocol.random_state,
    )
    facts = {"n_test": int(rows.sum()), "n_voxels": subject.n_voxels, "responses": hash_responses(subject.responses)}
    return curve, facts


def choose_test(images: np.ndarray, new: np.ndarray, protocol: FewShot) -> np.ndarray:
    """Images to score on, none of which another person's fit has seen.

    Parameters
    ----------
    images
        Of the person (n_images,).
    new
        Whether no other fit has seen them (n_images,).
    protocol
        Which are wanted.

    Returns
    -------
    ndarray of str

    Raises
    ------
    InputError
        If there are fewer than 2.
    """
    if protocol.test is not None:
        wanted = np.isin(images, read_names(protocol.test))
        if (wanted & ~new).any():
            seen = images[wanted & ~new][0]
            raise InputError(
                f"{protocol.test} names {int((wanted & ~new).sum())} images that other people were fitted on, such as "
                f"'{seen}': fit everybody with --test {protocol.test}, too."
            )
        chosen = images[wanted]
    else:
        free = np.sort(images[new])
        n = min(free.size, max(2, round(TEST_SHARE * images.size)))
        chosen = np.random.default_rng(protocol.random_state).permutation(free)[:n]
    if chosen.size < 2:
        raise InputError(
            f"{chosen.size} images are left to score on that no other person was fitted on: fit everybody with "
            "--test LIST, the images to keep for scoring."
        )
    return np.sort(chosen)


def read_curves(folder: Path, names: Sequence[str]) -> pd.DataFrame:
    """Read the curves that are there, with a column `subject` in front."""
    tables = []
    for name in names:
        if holds_result(folder / name, "few-shot"):
            table = pd.read_csv(folder / name / CURVE, sep="\t")
            table.insert(0, "subject", name)
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
