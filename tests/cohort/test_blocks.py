import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from test_running import same_files

from braincorl.cohort import FitOptions, Person, PersonFiles, Workers, fit_cohort, running
from braincorl.cohort.blocks import cut, fit_block
from braincorl.cohort.task import FitTask
from braincorl.datasets.load import open_subject
from braincorl.datasets.trials.prepared import load_prepared, read_rows
from braincorl.datasets.trials.preparing import prepare
from braincorl.errors import InputError
from braincorl.features import load_features, save_features
from braincorl.fits.folder import hash_responses, hash_rows

HERE = Workers(n_workers=1)


@pytest.fixture(scope="module")
def prepared(tree, tmp_path_factory):
    """Two of the simulated people as files of `braincorl data prepare`."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("sub-01", "sub-02"):
        files = tree.files[name]
        recording = open_subject(files["betas"], files["trials"], files["mask"], rois=files["rois"])
        prepare(recording, folder / f"{name}.h5")
    return [Person(path.stem, PersonFiles((path,))) for path in sorted(folder.glob("*.h5"))]


@pytest.fixture(scope="module")
def options(tree):
    return FitOptions(features=tree.features, n_context=20, encoder="bayesian-ridge")


@pytest.fixture(scope="module")
def whole(prepared, options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    outcomes = fit_cohort(prepared, options, folder, HERE)
    assert [outcome.status for outcome in outcomes] == ["fitted"] * 2
    return folder, outcomes


@pytest.mark.parametrize("encoder", ["ridge", "bayesian-ridge"])
def test_blocks_join_to_the_bytes_of_one_fit(encoder, prepared, tree, tmp_path):
    options = FitOptions(features=tree.features, n_context=20, encoder=encoder)
    one = fit_cohort(prepared[:1], options, tmp_path / "one", HERE)
    seen = []
    blocks = fit_cohort(
        prepared[:1], options, tmp_path / "blocks", HERE, voxels_per_task=50, progress=lambda *done: seen.append(done)
    )
    assert (blocks[0].status, blocks[0].text, blocks[0].warnings) == ("fitted", one[0].text, one[0].warnings)
    assert same_files(tmp_path / "one", tmp_path / "blocks")
    assert len(seen) > 3  # blocks of 64 voxels, and one that joins them


def test_a_run_goes_on_with_the_blocks_that_are_missing(prepared, options, whole, tmp_path, monkeypatch):
    folder, _ = whole
    fitted, fit = [], running.fit_block

    def fail_once(block):
        if block.start == 64 and not fitted.count("failed"):
            fitted.append("failed")
            return running.Outcome(block.name, "failed", "out of memory")
        outcome = fit(block)
        fitted.append(outcome.status)
        return outcome

    monkeypatch.setattr(running, "fit_block", fail_once)
    first = fit_cohort(prepared[:1], options, tmp_path / "out", HERE, voxels_per_task=64)
    assert (first[0].status, first[0].name) == ("failed", "sub-01")
    assert "voxels 65 to 128: out of memory" in first[0].text
    assert not (tmp_path / "out" / "sub-01").exists()
    done = fitted.count("fitted")
    again = fit_cohort(prepared[:1], options, tmp_path / "out", HERE, voxels_per_task=64)
    assert again[0].status == "fitted"
    assert fitted.count("fitted") == done + 1
    assert same_files(folder / "sub-01", tmp_path / "out" / "sub-01")
    assert not (tmp_path / "out" / ".blocks").exists()


@dataclass(frozen=True)
class DeadlyPerson(Person):
    """A person who kills the first worker process that opens a block of theirs, in the middle of its task."""

    deaths: Path = Path()

    def files(self):
        if multiprocessing.parent_process() and not (self.deaths / "died").exists():
            (self.deaths / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().files()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Dask's threads
def test_a_killed_worker_s_block_is_done_again_to_the_same_bytes(prepared, options, whole, tmp_path, caplog):
    folder, _ = whole
    people = [DeadlyPerson("sub-01", prepared[0].source, deaths=tmp_path)]
    found = fit_cohort(people, options, tmp_path / "out", Workers(n_workers=2, memory=4 * 10**9), voxels_per_task=64)
    assert (tmp_path / "died").exists()
    assert "a worker died: what it was doing is done again" in caplog.text
    assert [outcome.status for outcome in found] == ["fitted"]
    assert same_files(folder / "sub-01", tmp_path / "out" / "sub-01")


def test_blocks_of_another_file_are_fitted_again(prepared, options, tree, tmp_path):
    task = FitTask(prepared[0], options, tmp_path / "out")
    block = cut(task, 64).blocks[0]
    assert fit_block(block).status == "fitted"
    assert fit_block(block).status == "kept"
    files = tree.files["sub-01"]
    other = prepare(
        open_subject(files["betas"], files["trials"], files["mask"], zscore="session"), tmp_path / "sub-01.h5"
    )
    person = Person("sub-01", PersonFiles((other,)))
    assert fit_block(cut(FitTask(person, options, tmp_path / "out"), 64).blocks[0]).status == "fitted"
    for _ in range(2):  # fitted whole after all, then kept
        fit_cohort([person], options, tmp_path / "out", HERE)
    assert not (tmp_path / "out" / ".blocks").exists()


def with_features(options, tree, path, change):
    """Give the options with other features: `change` of their table."""
    save_features(path, change(load_features(tree.features)))
    return replace(options, features=path)


def test_images_whose_names_lack_an_ending_are_joined(prepared, options, tree, tmp_path):
    ending = with_features(
        options,
        tree,
        tmp_path / "features.npz",
        lambda table: replace(table, image_ids=np.array([f"{name}.png" for name in table.image_ids])),
    )
    one = fit_cohort(prepared[:1], ending, tmp_path / "one", HERE)
    blocks = fit_cohort(prepared[:1], ending, tmp_path / "blocks", HERE, voxels_per_task=64)
    assert [one[0].status, blocks[0].status] == ["fitted", "fitted"]
    assert same_files(tmp_path / "one", tmp_path / "blocks")


def test_images_that_are_one_picture_are_joined_as_they_are_fitted(prepared, options, tree, tmp_path):
    names = load_prepared(prepared[0].source.betas[0]).image_ids.tolist()

    def copied(table):
        rows, features = table.image_ids.tolist(), table.features.copy()
        for first, second in zip(names[:10:2], names[1:10:2], strict=True):
            features[rows.index(second)] = features[rows.index(first)]
        return replace(table, features=features)

    copies = with_features(options, tree, tmp_path / "features.npz", copied)
    fit_cohort(prepared[:1], copies, tmp_path / "one", HERE)
    fit_cohort(prepared[:1], copies, tmp_path / "blocks", HERE, voxels_per_task=64)
    assert same_files(tmp_path / "one", tmp_path / "blocks")


def test_blocks_of_other_features_or_options_and_damaged_ones_are_fitted_again(prepared, options, tree, tmp_path):
    own = with_features(options, tree, tmp_path / "features.npz", lambda table: table)
    block = cut(FitTask(prepared[0], own, tmp_path / "out"), 64).blocks[0]
    assert [fit_block(block).status for _ in range(2)] == ["fitted", "kept"]
    save_features(tmp_path / "features.npz", replace(load_features(tree.features), provenance={"backbone": "another"}))
    for changed in (own, replace(own, n_context=25), replace(own, n_context=25, encoder="ridge")):
        block = cut(FitTask(prepared[0], changed, tmp_path / "out"), 64).blocks[0]
        assert [fit_block(block).status for _ in range(2)] == ["fitted", "kept"]
    (block.path / "encoder.safetensors").write_bytes(b"damaged")
    assert fit_block(block).status == "fitted"


def test_blocks_of_a_run_that_fits_a_person_again_are_left_to_it(prepared, options, tmp_path):
    fit_cohort(prepared[:1], options, tmp_path / "out", HERE)
    block = cut(FitTask(prepared[0], options, tmp_path / "out", overwrite=True), 64).blocks[0]
    assert fit_block(block).status == "fitted"
    assert [outcome.status for outcome in fit_cohort(prepared[:1], options, tmp_path / "out", HERE)] == ["kept"]
    assert block.path.is_dir()


def test_mistakes_are_named(prepared, options, tree, tmp_path):
    plain = FitOptions(features=tree.features)
    with pytest.raises(InputError, match=r"encoders that treat each voxel by itself .* the encoder is in-context"):
        fit_cohort(prepared, plain, tmp_path / "out", HERE, voxels_per_task=100)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="voxels_per_task is 0"):
        fit_cohort(prepared, options, tmp_path / "out", HERE, voxels_per_task=0)
    files = tree.files["sub-01"]
    person = Person("sub-01", PersonFiles((files["betas"],), (files["trials"],)))
    (outcome,) = fit_cohort([person], options, tmp_path / "out", HERE, voxels_per_task=100)
    assert outcome.status == "failed"
    assert "prepare the person with braincorl data prepare" in outcome.text


def test_rows_of_a_prepared_file_are_its_responses(prepared, monkeypatch):
    path = prepared[0].source.betas[0]
    images = load_prepared(path).image_ids[3:17].tolist()
    responses = load_prepared(path, images=images).responses
    monkeypatch.setenv("BRAINCORL_MEMORY", "40 kB")
    parts = list(read_rows(path, images))
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts), responses)
    assert hash_rows(parts, responses.shape, responses.dtype) == hash_responses(responses)
    block = load_prepared(path, voxels=slice(64, 128))
    np.testing.assert_array_equal(block.responses, load_prepared(path).responses[:, 64:128])
    assert set(block.rois) <= set(load_prepared(path).rois)
