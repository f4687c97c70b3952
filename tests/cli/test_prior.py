import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from braincorl import GroupPrior, GroupPriorEncoder, load_encoder
from braincorl.features import FeatureTable, load_features, save_features


@pytest.fixture(scope="module")
def fits(inputs, world, tmp_path_factory):
    """Bayesian ridge fits of two simulated people, with regions."""
    from braincorl.cli.main import main

    folders = []
    for number, person in enumerate(world.people):
        folder = tmp_path_factory.mktemp(f"person{number}")
        paths = person.write(folder)
        options = [part for name in ("betas", "trials", "mask", "rois") for part in (f"--{name}", paths[name])]
        out = folder / "fit"
        assert main([str(a) for a in ("fit", "--features", inputs.features, *options, "--output-dir", out)]) == 0
        folders.append(out)
    return folders


def test_a_prior_is_learned_from_fits_and_used_by_a_fit(fits, inputs, braincorl, tmp_path):
    learned = braincorl("prior", *fits, "--rois", "--output", tmp_path / "prior.safetensors")
    assert learned.status == 0, learned.err
    prior = GroupPrior.load(tmp_path / "prior.safetensors")
    assert prior.summary["n_people"] == 2
    assert prior.provenance["backbone"] == "simulation"
    assert len(prior.regions) > 1
    arguments = inputs.arguments(rois=inputs.rois)
    done = braincorl(
        "fit", *arguments, "--encoder", "group-prior", "--prior", tmp_path / "prior.safetensors", "--n-context", 20,
        "--output-dir", tmp_path / "fit",
    )  # fmt: skip
    assert done.status == 0, done.err
    encoder = load_encoder(tmp_path / "fit" / "encoder.safetensors")
    assert isinstance(encoder, GroupPriorEncoder)
    assert encoder.region_probability_.shape == (encoder.coef_.shape[0], len(prior.regions))


def test_a_fit_writes_the_regions_that_its_voxels_are_like(fits, inputs, braincorl, tmp_path):
    """A functional localiser without a localiser: maps, a segmentation of whole numbers, and a table that agree."""
    assert braincorl("prior", *fits, "--rois", "--output", tmp_path / "prior.safetensors").status == 0
    options = ("--encoder", "in-context", "--prior", tmp_path / "prior.safetensors", "--output-dir", tmp_path / "fit")
    assert braincorl("fit", *inputs.arguments(), *options).status == 0
    encoder = load_encoder(tmp_path / "fit" / "encoder.safetensors")
    table = pd.read_csv(next((tmp_path / "fit").glob("*_dseg.tsv")), sep="\t")
    assert table["name"].tolist() == encoder.region_names_.tolist()
    image = nib.load(next((tmp_path / "fit").glob("*_dseg.nii.gz")))
    assert image.get_data_dtype() == np.int16
    segmentation = np.asanyarray(image.dataobj)
    assert table["n_voxels"].tolist() == [int((segmentation == i).sum()) for i in table["index"]]
    assert table["n_voxels"].sum() > 0
    for number, name in enumerate(table["name"]):
        label = "".join(c for c in name if c.isalnum())
        (path,) = (tmp_path / "fit").glob(f"*_label-{label}_stat-probability_statmap.nii.gz")
        values = nib.load(path).get_fdata()
        expected = encoder.region_probability_[:, number]
        np.testing.assert_allclose(np.sort(values[np.isfinite(values)]), np.sort(expected), rtol=1e-5)
    assert braincorl("report", tmp_path / "fit", "--output", tmp_path / "report.html").status == 0
    assert "Regions by likeness" in (tmp_path / "report.html").read_text()


def test_places_of_earlier_people_inform_a_new_one(fits, inputs, braincorl, tmp_path):
    done = braincorl("prior", *fits, "--places", "--max-items", 300, "--output", tmp_path / "prior.safetensors")
    assert done.status == 0, done.err
    prior = GroupPrior.load(tmp_path / "prior.safetensors")
    assert prior.positions is not None
    assert prior.positions.shape[1] == 3
    assert prior.spacing == pytest.approx(8.0)
    options = ("--encoder", "group-prior", "--prior", tmp_path / "prior.safetensors", "--n-context", 10)
    assert braincorl("fit", *inputs.arguments(), *options, "--output-dir", tmp_path / "fit").status == 0


def test_features_of_another_backbone_are_refused(fits, inputs, braincorl, tmp_path):
    assert braincorl("prior", *fits, "--output", tmp_path / "p.safetensors").status == 0
    table = load_features(inputs.features)
    save_features(tmp_path / "other.npz", FeatureTable(table.features, table.image_ids, {"backbone": "another"}))
    options = ("--encoder", "group-prior", "--prior", tmp_path / "p.safetensors", "--output-dir", tmp_path / "fit")
    refused = braincorl("fit", *inputs.arguments(features=tmp_path / "other.npz"), *options)
    assert refused.status == 2
    assert "backbone" in refused.err
    assert not (tmp_path / "fit").exists()


def test_mistakes_end_in_one_line(fits, inputs, braincorl, tmp_path):
    (tmp_path / "taken.safetensors").write_bytes(b"")
    for arguments, message in (
        (("prior", *fits, "--output", tmp_path / "taken.safetensors"), "exists"),
        (("prior", tmp_path, "--output", tmp_path / "new.safetensors"), "is no fit"),
        (("prior", *fits, fits[0], "--output", tmp_path / "new.safetensors"), "give each person once"),
        (("fit", *inputs.arguments(), "--encoder", "group-prior", "--output-dir", tmp_path / "f"), "--prior"),
        (("fit", *inputs.arguments(), "--encoder", "ridge", "--prior", "x", "--output-dir", tmp_path / "f"), "choose"),
    ):
        result = braincorl(*arguments)
        assert result.status == 2
        assert message in result.err
        assert result.err.count("\n") == 1


def test_the_shipped_prior_gives_a_fit_from_few_images():
    prior = GroupPrior.load("bold5000-resnet18")
    assert prior.n_features == 512
    assert prior.regions == ("EarlyVis", "LOC", "OPA", "PPA", "RSC")
    X = np.abs(np.random.default_rng(0).standard_normal((0, 512)))
    rois = np.array(["PPA", "EarlyVis", "somewhere"])
    encoder = GroupPriorEncoder("bold5000-resnet18").fit(X, np.empty((0, 3)), rois=rois)
    variance = np.einsum("vp,pq,vq->v", encoder.coef_, prior.pool_covariance, encoder.coef_)
    assert (variance > 0).all()
    assert encoder.region_probability_[0].argmax() == prior.regions.index("PPA")
    assert encoder.region_probability_[1].argmax() == prior.regions.index("EarlyVis")


def test_select_writes_a_context_for_fit(fits, inputs, braincorl, tmp_path):
    assert braincorl("prior", *fits, "--output", tmp_path / "p.safetensors").status == 0
    listed = tmp_path / "list.txt"
    options = ("--features", inputs.features, "--prior", tmp_path / "p.safetensors", "--output", listed)
    done = braincorl("select", *options, "--n", 7)
    assert done.status == 0, done.err
    names = listed.read_text().split()
    assert len(set(names)) == 7
    assert set(names) <= set(load_features(inputs.features).image_ids.tolist())
    assert braincorl("select", *options, "--n", 7).status == 2
    assert braincorl("select", *options, "--n", 10**6, "--overwrite").status == 2
