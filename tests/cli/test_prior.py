import numpy as np
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
    learned = braincorl("prior", *fits, "--rois", "--components", 12, "--output", tmp_path / "prior.safetensors")
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
    assert encoder.log_weight_.shape[1] == encoder.coef_.shape[0]


def test_features_of_another_backbone_are_refused(fits, inputs, braincorl, tmp_path):
    assert braincorl("prior", *fits, "--components", 1, "--output", tmp_path / "p.safetensors").status == 0
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
    assert (encoder.responsibility_[0] != encoder.responsibility_[1]).any()


def test_select_writes_a_context_for_fit(fits, inputs, braincorl, tmp_path):
    assert braincorl("prior", *fits, "--components", 1, "--output", tmp_path / "p.safetensors").status == 0
    listed = tmp_path / "list.txt"
    options = ("--features", inputs.features, "--prior", tmp_path / "p.safetensors", "--output", listed)
    done = braincorl("select", *options, "--n", 7)
    assert done.status == 0, done.err
    names = listed.read_text().split()
    assert len(set(names)) == 7
    assert set(names) <= set(load_features(inputs.features).image_ids.tolist())
    assert braincorl("select", *options, "--n", 7).status == 2
    assert braincorl("select", *options, "--n", 10**6, "--overwrite").status == 2
