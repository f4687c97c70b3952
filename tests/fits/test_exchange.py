"""A fitted person outside braincorl: himalaya's estimator, a plain .npz, and a card."""

import json
import runpy

import numpy as np
import pytest
import yaml
from nibabel.cifti2.cifti2_axes import BrainModelAxis

from braincorl import RidgeEncoder
from braincorl.cli.main import main
from braincorl.datasets import Surface, VoxelSpace
from braincorl.datasets.space import Subcortex
from braincorl.datasets.surfaces.cifti import brain_axis
from braincorl.errors import InputError, OutputError
from braincorl.fits import Fit


@pytest.fixture
def data(rng):
    X = rng.standard_normal((30, 4)).astype("f4")
    return X, (X @ rng.standard_normal((4, 11)) + rng.standard_normal((30, 11))).astype("f4")


@pytest.fixture(params=["volume", "surface"])
def fit(request, data, rng):
    if request.param == "volume":
        mask = np.zeros((3, 4, 2), dtype=bool)
        mask.ravel()[rng.permutation(24)[:12]] = True
        space = VoxelSpace(np.arange(12) != 5, mask, np.diag([2.0, 2, 2, 1]))
    else:
        left, right = np.arange(9) % 2 == 0, np.arange(12) < 7
        space = VoxelSpace(np.arange(12) != 5, surface=Surface(left, right, "native"))
    encoder = RidgeEncoder().fit(*data)
    config = {
        "subject": "sub-03",
        "prefix": "sub-03",
        "zscore": "session",
        "features_provenance": {"backbone": "timm:resnet18"},
        "encoder": "ridge",
        "n_left_out": 7,
    }
    kept = {"ev": np.linspace(0, 1, 11), "r2": np.full(11, np.nan), "r": np.linspace(0, 0.5, 11)}
    return Fit(encoder, space, {"V1": np.arange(11) < 3}, config, [f"image{n}" for n in range(30)], kept_maps=kept)


def test_himalaya_predicts_and_scores_the_same(fit, data):
    pytest.importorskip("himalaya", reason="himalaya is not installed")
    made = fit.to_himalaya()
    np.testing.assert_allclose(made.predict(data[0]), fit.encoder.predict(data[0]), rtol=1e-5, atol=1e-5)
    assert made.coef_.shape == (4, 11)
    residual = ((data[1] - fit.encoder.predict(data[0])) ** 2).sum(axis=0)
    expected = 1 - residual / ((data[1] - data[1].mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(made.score(data[0], data[1]), expected, rtol=1e-4)


def test_plain_arrays_predict_and_place_voxels_with_numpy_alone(fit, data, tmp_path):
    fit.export(tmp_path / "out")
    with np.load(tmp_path / "out" / "encoder.npz", allow_pickle=False) as file:
        arrays = dict(file)
    predicted = data[0] @ arrays["weights"].T + arrays["intercept"]
    np.testing.assert_allclose(predicted, fit.encoder.predict(data[0]), rtol=1e-5, atol=1e-5)
    assert arrays["context"].tolist() == fit.context
    assert arrays["regions"].tolist() == ["V1"]
    np.testing.assert_array_equal(arrays["in_region"][:, 0], fit.rois["V1"])
    if fit.space.mask is not None:
        volume = np.zeros(arrays["shape"], dtype=int)
        volume[tuple(arrays["voxel"].T)] = 1
        expected = np.zeros(fit.space.mask.shape, dtype=int)
        expected[fit.space.mask] = fit.space.included
        np.testing.assert_array_equal(volume, expected)
    else:
        for side, chosen, start in (("L", fit.space.surface.left, 0), ("R", fit.space.surface.right, 5)):
            own = fit.space.included[start : start + chosen.sum()]
            np.testing.assert_array_equal(arrays["vertex"][arrays["hemisphere"] == side], np.flatnonzero(chosen)[own])


# Fields of the cards in BERG's registry.
FIELDS = (
    *("model_id", "modality", "training_dataset", "species", "stimuli", "model_type", "creator", "description"),
    *("metadata", "input", "output", "parameters", "performance", "references"),
)


def test_the_card_has_the_fields_of_the_registry(fit, tmp_path):
    fit.export(tmp_path / "out", creator="a lab", training_dataset="NSD")
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert set(FIELDS) <= set(card)
    assert card["parameters"]["selection"]["properties"]["roi"]["valid_values"] == ["V1"]
    assert card["model_id"] == "fmri-nsd-resnet18-ridge"
    assert card["creator"] == "a lab"
    assert card["input"]["shape"] == ["batch_size", 4]
    assert card["output"]["shape"] == ["batch_size", 11]
    metrics = card["performance"]["metrics"]
    assert {metric["name"]: metric["value"] for metric in metrics} == {"ev": 0.5, "r": 0.25}
    assert all("7 images that the fit has not seen" in metric["description"] for metric in metrics)
    assert card["metadata"]["roi"] == {"V1": 3}


def test_an_export_replaces_only_an_export(fit, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("a file of the user's")
    with pytest.raises(OutputError):
        fit.export(tmp_path / "out", overwrite=True)
    fit.export(tmp_path / "new")
    with pytest.raises(OutputError):
        fit.export(tmp_path / "new")
    fit.export(tmp_path / "new", overwrite=True)


def test_without_himalaya_one_line_says_so(fit, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "himalaya.ridge", None)
    with pytest.raises(InputError, match="pip install himalaya"):
        fit.to_himalaya()


def test_grayordinates_are_rebuilt_from_the_arrays_alone(data, tmp_path):
    """With nibabel's own axes, for an axis that has them in an order of its own and places without data."""
    below = Subcortex(
        np.array(["CIFTI_STRUCTURE_THALAMUS_LEFT", "CIFTI_STRUCTURE_THALAMUS_LEFT", "CIFTI_STRUCTURE_BRAIN_STEM"]),
        np.array([[0, 1, 2], [3, 1, 0], [2, 2, 2]]), (4, 5, 6), np.diag([-2.0, 2, 2, 1]),
    )  # fmt: skip
    order = np.array([9, 10, 11, *range(9)])  # below the cortex first
    surface = Surface(np.arange(9) % 2 == 0, np.arange(8) < 4, "native", below, order)
    space = VoxelSpace(np.arange(12) != 10, surface=surface)
    config = {"subject": "sub-03", "prefix": "sub-03", "zscore": "none", "features_provenance": {}}
    fit = Fit(RidgeEncoder().fit(*data), space, {}, config, [f"image{n}" for n in range(30)], kept_maps={})
    fit.export(tmp_path / "out")
    arrays = dict(np.load(tmp_path / "out" / "encoder.npz", allow_pickle=False))
    parts = []
    for letter, name, count in (("L", "LEFT", 0), ("R", "RIGHT", 1)):
        vertices = arrays["vertex"][arrays["hemisphere"] == letter]
        parts.append(
            BrainModelAxis.from_surface(vertices, arrays["n_vertices"][count], f"CIFTI_STRUCTURE_CORTEX_{name}")
        )
    parts.append(
        BrainModelAxis(
            name=arrays["deep_structure"],
            voxel=arrays["deep_voxel"],
            affine=arrays["affine"],
            volume_shape=tuple(arrays["shape"].tolist()),
        )
    )
    axis = (parts[0] + parts[1] + parts[2])[arrays["axis_order"]]
    assert axis == brain_axis(surface.select(space.included))
    assert len(axis) == 11
    assert str(arrays["surface"]) == "native"
    listed = brain_axis(surface)  # what the betas' file had, without the place that has no data
    kept = np.flatnonzero(space.included[order])
    assert axis == listed[kept]


def test_the_script_beside_himalayas_arrays_loads_them(fit, data, tmp_path):
    pytest.importorskip("himalaya", reason="himalaya is not installed")
    fit.export(tmp_path / "out", format="himalaya")
    ridge = runpy.run_path(str(tmp_path / "out" / "load_encoder.py"))["load"]()
    np.testing.assert_array_equal(ridge.predict(data[0]), fit.to_himalaya().predict(data[0]))
    assert ridge.coef_.shape == (4, 11)


def test_in_bergs_layout_the_card_is_yaml_and_the_arrays_lie_where_its_models_have_them(fit, tmp_path):
    """As its registry reads them: yaml.safe_load of model_cards/MODEL_ID.yaml."""
    out = fit.export(tmp_path / "out", format="berg", training_dataset="NSD")
    (path,) = out.glob("berg/models/model_cards/*.yaml")
    card = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert path.stem == card["model_id"] == "fmri-nsd-resnet18-ridge"
    assert set(FIELDS) <= set(card)
    (weights,) = out.glob("encoding_models/modality-fmri/train_dataset-nsd/model-resnet18-ridge/*/*.npz")
    assert weights.name == "weights_subject-03.npz"
    assert weights.relative_to(out).as_posix() in card["output"]["description"]
    np.testing.assert_array_equal(np.load(weights)["weights"], fit.encoder.coef_)


def test_the_verb_writes_what_the_library_does(fit, tmp_path, capsys):
    fit.save(tmp_path / "fit")
    words = ["export", str(tmp_path / "fit"), "--output-dir", str(tmp_path / "out"), "--training-dataset", "NSD"]
    assert main([*words, "--license", "CC0-1.0"]) == 0
    assert "11 voxels x 4 features as npz" in capsys.readouterr().out
    Fit.load(tmp_path / "fit").export(tmp_path / "own", training_dataset="NSD", license_="CC0-1.0")
    assert (tmp_path / "out" / "model_card.json").read_text() == (tmp_path / "own" / "model_card.json").read_text()
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    with pytest.raises(InputError, match="format is 'mat', expected one of npz, himalaya, berg"):
        fit.export(tmp_path / "other", format="mat")
