import numpy as np
import pandas as pd
import pytest

from braincorl.analysis.benchmarking import benchmark_person, read_benchmark
from braincorl.datasets import load_subject
from braincorl.encoders import RidgeEncoder
from braincorl.features import load_features
from braincorl.metrics import explained_variance


def subject_rois(inputs):
    return load_subject(inputs.betas, inputs.trials, inputs.mask, rois=[inputs.rois]).rois


def scores(folder):
    return pd.read_csv(folder / "scores.tsv", sep="\t")


def test_a_person_is_compared_on_repeated_images(inputs, world, braincorl, tmp_path):
    out = tmp_path / "b"
    arguments = [*inputs.arguments(rois=inputs.rois), "--n-draws", 2, "--counts", 10, 60]
    result = braincorl("benchmark", *arguments, "--output-dir", out)
    assert result.status == 0, result.err
    assert "scored on 30 images, those shown more than once; contexts drawn from 60 others" in result.out
    assert "mean noise ceiling of EV" in result.out
    table = scores(out)
    assert set(table["encoder"]) == {"ridge", "bayesian-ridge", "in-context"}
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    # The same by hand, from all images that were shown once.
    subject, features = load_subject(inputs.betas, inputs.trials, inputs.mask), load_features(inputs.features)
    own = subject.image_ids[subject.n_repeats == 1]
    encoder = RidgeEncoder().fit(features.features[features.rows(own)], subject.select_images(own).responses)
    predicted = encoder.predict(features.features[features.rows(world.shared)])
    expected = np.nanmean(explained_variance(subject.select_images(world.shared).responses, predicted))
    row = table[(table["encoder"] == "ridge") & (table["n_context"] == 60)]
    assert row["ev"].item() == pytest.approx(expected, abs=1e-4)
    # Regions, with intervals over voxels and draws.
    regions = pd.read_csv(out / "regions.tsv", sep="\t").set_index(["encoder", "n_context", "roi"])
    assert regions.loc[("ridge", 60, "all"), "ev_mean"] == pytest.approx(expected, abs=1e-4)
    few = table[(table["encoder"] == "in-context") & (table["n_context"] == 10)]
    assert regions.loc[("in-context", 10, "all"), "ev_mean"] == pytest.approx(few["ev"].mean(), abs=1e-4)
    assert len(regions) == 3 * 2 * (1 + len(subject_rois(inputs)))
    known = regions.dropna()
    assert ((known["ev_low"] < known["ev_mean"]) & (known["ev_mean"] < known["ev_high"])).all()
    found = read_benchmark(out)
    assert found.subject == "sub-01"
    again = benchmark_person(subject, features, {"ridge": RidgeEncoder()}, counts=[60], test=world.shared)
    assert again.curve["ev"].tolist() == pytest.approx([expected])
    assert found.ceiling == pytest.approx(np.nanmean(subject.select_images(world.shared).noise_ceiling()), abs=1e-4)


def test_test_images_can_be_named_and_encoders_chosen(inputs, world, braincorl, tmp_path):
    (tmp_path / "test.txt").write_text("\n".join(world.shared[:20]))
    arguments = [*inputs.arguments(), "--test", tmp_path / "test.txt", "--encoders", "bayesian-ridge"]
    result = braincorl("benchmark", *arguments, "--counts", 20, "--n-draws", 1)
    assert result.status == 0, result.err
    assert "scored on 20 images, those of test.txt; contexts drawn from 70 others" in result.out
    assert " ridge " not in result.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.txt"]


def test_without_data_people_are_simulated(braincorl, tmp_path):
    out = tmp_path / "b"
    result = braincorl("benchmark", "--encoders", "ridge", "bayesian-ridge", "--n-draws", 1, "--output-dir", out)
    assert result.status == 0, result.err
    assert result.out.startswith("SIMULATION")
    assert "SIMULATION" in (out / "README.md").read_text()
    table = scores(out).pivot_table(index="n_context", columns="encoder", values="ev")
    assert table.index.tolist() == [10, 20, 50, 100, 200]
    assert (table["bayesian-ridge"] > table["ridge"]).all()


CASES = {
    "half a person": (lambda i: ["--features", i.features], "--features and --betas belong together"),
    "a mask alone": (lambda i: ["--mask", i.mask], "--mask belongs to a person's data"),
    "more images than there are": (
        lambda i: [*i.arguments(), "--counts", "61"], "asks for 61 context images, but besides the test's"),
    "one image": (lambda i: [*i.arguments(), "--counts", "1"], "expected numbers between 2"),
    "an unknown encoder": (lambda i: ["--encoders", "lasso"], "invalid choice: 'lasso'"),
    "a network that is not there": (
        lambda i: [*i.arguments(), "--encoders", "in-context", "--checkpoint", "absent.pth"],
        "absent.pth does not exist",
    ),
    "a prior without its file": (lambda i: [*i.arguments(), "--encoders", "group-prior"], "needs --prior"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_gets_one_line_and_leaves_nothing(inputs, braincorl, tmp_path, case):
    change, message = CASES[case]
    result = braincorl("benchmark", *change(inputs), "--output-dir", tmp_path / "b")
    assert result.status == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
