"""One person's betas as .npy, GIFTI, MGH and CIFTI: the same encoders, and maps that go back where they came from."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2.cifti2_axes import BrainModelAxis, LabelAxis, ScalarAxis, SeriesAxis

from braincorl.datasets import load_bids, load_prepared, load_subject
from braincorl.datasets.surfaces.cifti import CiftiFile
from braincorl.errors import InputError
from braincorl.features import FeatureTable, save_features
from braincorl.fits import Fit
from braincorl.fits.folder import read_maps
from braincorl.questions.permutation import fdr

LEFT, RIGHT = 13, 17  # vertices
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def axis(kind):
    """Grayordinates: of the whole cortex, or shuffled blocks of some vertices and voxels of two structures."""
    whole = [
        BrainModelAxis.from_surface(np.arange(n), n, f"CIFTI_STRUCTURE_CORTEX_{side}")
        for side, n in (("LEFT", LEFT), ("RIGHT", RIGHT))
    ]
    if kind == "cortex":
        return whole[0] + whole[1]
    below = [
        BrainModelAxis(
            name=np.array([f"CIFTI_STRUCTURE_{name}"] * 2),
            voxel=np.array([[z, 1, 0], [z, 0, 1]]),
            affine=AFFINE,
            volume_shape=(4, 4, 4),
        )
        for z, name in enumerate(("THALAMUS_LEFT", "PUTAMEN_RIGHT"), start=1)
    ]
    return below[1] + whole[1][::2] + below[0] + whole[0][[5, 3, 8]]


def write_cifti(path, values, brain, rows=None):
    rows = rows or SeriesAxis(0, 1, len(values))
    nib.Cifti2Image(values.astype("f4"), header=(rows, brain)).to_filename(path)
    return path


def write_hemispheres(folder, stem, values, ending=".func.gii", names=("lh", "rh"), say=True, stacked=False):
    """Values (n_trials, LEFT + RIGHT) as two files."""
    paths = []
    for name, part, side in zip(names, np.split(values.astype("f4"), [LEFT], axis=-1), ("Left", "Right"), strict=True):
        paths.append(folder / (name.format(stem) if "{}" in name else f"{name}{stem}{ending}"))
        if ending.endswith(".gii"):
            arrays = [part.T.copy()] if stacked else list(np.atleast_2d(part))
            meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": f"Cortex{side}"} if say else {})
            darrays = [nib.gifti.GiftiDataArray(array, datatype="NIFTI_TYPE_FLOAT32") for array in arrays]
            nib.save(nib.GiftiImage(darrays=darrays, meta=meta), paths[-1])
        else:
            nib.save(
                nib.MGHImage(part.reshape(-1, 1, 1) if part.ndim == 1 else part.T[:, None, None], np.eye(4)), paths[-1]
            )
    return paths


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    """Two sessions of trials over all vertices, tables and features."""
    folder = tmp_path_factory.mktemp("person")
    rng = np.random.default_rng(0)
    names = np.array([f"image{number:02d}" for number in range(30)])
    features = rng.standard_normal((30, 5)).astype("f4")
    signal = features @ rng.standard_normal((5, LEFT + RIGHT)).astype("f4")
    shown = [rng.permutation(30)[:24] for _ in range(2)]
    trials = [(signal[rows] + rng.standard_normal((24, LEFT + RIGHT))).astype("f4") for rows in shown]
    save_features(folder / "features.npz", FeatureTable(features, names, {"backbone": "none"}))
    for number, rows in enumerate(shown, start=1):
        lines = [f"{names[row]}\t{number}" for row in rows]
        (folder / f"ses-{number}_trials.tsv").write_text("image\tsession\n" + "\n".join(lines) + "\n")
    return folder, trials


def fit(braincorl, person, betas, out, *more):
    folder, _ = person
    tables = [folder / "ses-1_trials.tsv", folder / "ses-2_trials.tsv"]
    given = ("--features", folder / "features.npz", "--trials", *tables, "--encoder", "ridge", "--n-context", 20)
    result = braincorl("fit", "--betas", *betas, *given, "--output-dir", out, *more)
    assert result.status == 0, result.err
    return Fit.load(out)


@pytest.fixture(scope="module")
def from_npy(person, tmp_path_factory):
    from braincorl.cli.main import main

    folder, trials = person
    betas = []
    for number, values in enumerate(trials, start=1):
        betas.append(folder / f"sub-01_ses-{number}_betas.npy")
        np.save(betas[-1], values)
    out = tmp_path_factory.mktemp("npy") / "fit"
    tables = [str(folder / f"ses-{number}_trials.tsv") for number in (1, 2)]
    arguments = ["--features", str(folder / "features.npz"), "--trials", *tables, "--encoder", "ridge"]
    assert main(["fit", "--betas", *map(str, betas), *arguments, "--n-context", "20", "--output-dir", str(out)]) == 0
    return Fit.load(out)


KINDS = {
    "gifti": {},
    "one array": {"stacked": True},
    "said by the name alone": {"say": False},
    "bids": {"names": ("sub-01_hemi-L", "sub-01_hemi-R"), "say": False},
    "hcp": {"names": ("sub-01{}.L.func.gii", "sub-01{}.R.func.gii"), "say": False},
    "mgh": {"ending": ".mgh"},
    "mgz": {"ending": ".mgz"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_hemispheres_give_the_encoders_of_the_same_numbers(braincorl, person, from_npy, tmp_path, kind):
    betas = []
    for number, values in enumerate(person[1], start=1):
        betas += write_hemispheres(tmp_path, f"_ses-{number}", values, **KINDS[kind])
    rights_first = [*betas[1::2], *betas[::2]]  # the place in the list says nothing
    made = fit(braincorl, person, rights_first, tmp_path / "fit")
    np.testing.assert_array_equal(made.encoder.coef_, from_npy.encoder.coef_)
    assert (made.space.surface.left.size, made.space.surface.right.size) == (LEFT, RIGHT)
    (left,) = (tmp_path / "fit").glob("*_hemi-L_stat-ev_statmap.shape.gii")
    assert nib.load(left).agg_data().shape == (LEFT,)


@pytest.mark.parametrize("kind", ["cortex", "shuffled"])
def test_cifti_gives_the_same_encoders_and_maps_on_its_own_axis(braincorl, person, from_npy, tmp_path, kind):
    brain = axis(kind)
    deep = np.random.default_rng(1).standard_normal((2, 24, len(brain))).astype("f4")
    betas, column = [], np.full(len(brain), -1)
    for number, values in enumerate(person[1], start=1):
        filled = deep[number - 1]
        for row, (name, vertex) in enumerate(zip(brain.name, brain.vertex, strict=True)):
            if "CORTEX" in name:
                column[row] = vertex + LEFT * ("RIGHT" in name)
                filled[:, row] = values[:, column[row]]
        betas.append(write_cifti(tmp_path / f"sub-01_ses-{number}_betas.dtseries.nii", filled, brain))
    made = fit(braincorl, person, betas, tmp_path / "fit")
    (path,) = (tmp_path / "fit").glob("*_stat-ev_statmap.dscalar.nii")
    image = nib.load(path)
    assert image.header.get_axis(1) == brain
    image.header.matrix.get_index_map(1)  # nibabel's own reading of the XML
    expected = np.load(next(from_npy.path.glob("*_stat-ev_statmap.npy")))
    np.testing.assert_array_equal(image.get_fdata(dtype="f4")[0, column >= 0], expected[column[column >= 0]])
    # What else verbs write and read: predictions, scores of the same file, the space itself.
    assert made.space.n_voxels == len(brain)
    scored = braincorl(
        "score", tmp_path / "fit", "--features", person[0] / "features.npz", "--betas", *betas,
        "--trials", person[0] / "ses-1_trials.tsv", person[0] / "ses-2_trials.tsv",
    )  # fmt: skip
    assert scored.status == 0, scored.err
    again = CiftiFile(next((tmp_path / "fit" / "scores").glob("*_stat-ev_statmap.dscalar.nii")))
    np.testing.assert_array_equal(again.rows(0, 1), CiftiFile(path).rows(0, 1))
    predicted = braincorl(
        "predict", tmp_path / "fit", "--features", person[0] / "features.npz", "--output-dir", tmp_path / "predicted"
    )
    assert predicted.status == 0, predicted.err
    assert nib.load(next((tmp_path / "predicted").glob("*.dscalar.nii"))).shape == (30, len(brain))


def test_masks_regions_and_noise_of_every_kind_are_the_same(braincorl, person, tmp_path):
    betas = []
    for number, values in enumerate(person[1], start=1):
        betas += write_hemispheres(tmp_path, f"_ses-{number}", values)
    rng = np.random.default_rng(2)
    mask = (rng.random(LEFT + RIGHT) < 0.7).astype("f4")
    region = np.r_[np.arange(LEFT) % 3, np.arange(RIGHT) % 3].astype("f4")  # 1 and 2, in both hemispheres
    noise = rng.random(LEFT + RIGHT)
    both = axis("cortex")
    for side, part in zip(("lh", "rh"), np.split(region, [LEFT]), strict=True):
        table = np.array([[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0]])
        names = ["Unknown", "V1", "FFA"]
        nib.freesurfer.write_annot(tmp_path / f"{side}.areas.annot", part.astype(int), table, names, fill_ctab=True)
    labels = LabelAxis(["areas"], [{0: ("???", (0, 0, 0, 0)), 1: ("V1", (1, 0, 0, 1)), 2: ("FFA", (0, 1, 0, 1))}])
    one = ScalarAxis(["one"])
    ways = {
        "hemispheres": (
            write_hemispheres(tmp_path, "_mask", mask, ".mgz"),
            [tmp_path / "rh.areas.annot", tmp_path / "lh.areas.annot"],
            write_hemispheres(tmp_path, "_ncsnr", noise, ".shape.gii"),
        ),
        "cifti": (
            [write_cifti(tmp_path / "mask.dscalar.nii", mask[None], both, one)],
            [write_cifti(tmp_path / "areas.dlabel.nii", region[None], both, labels)],
            [write_cifti(tmp_path / "ncsnr.dscalar.nii", noise[None], both, one)],
        ),
    }
    fits = {}
    for way, (masks, rois, signal) in ways.items():
        out = tmp_path / way
        fits[way] = fit(braincorl, person, betas, out, "--mask", *masks, "--rois", *rois, "--ncsnr", *signal)
    made, other = fits.values()
    assert list(made.rois) == ["FFA", "V1"] or list(made.rois) == ["V1", "FFA"]
    for name, number in (("V1", 1), ("FFA", 2)):
        inside = region[mask > 0] == number
        np.testing.assert_array_equal(made.rois[name], inside)
        np.testing.assert_array_equal(other.rois[name], inside)
    np.testing.assert_array_equal(made.encoder.coef_, other.encoder.coef_)
    maps = [CiftiFile(next((tmp_path / way).glob("*_stat-noiseceiling_*.dscalar.nii"))).rows(0, 1) for way in ways]
    np.testing.assert_array_equal(*maps)


def contradicting(folder, values):
    left, right = write_hemispheres(folder, "_betas", values)
    return [left.rename(folder / "rh_x.func.gii"), right]


MISTAKES = {
    "a name against what the file says": (contradicting, "AnatomicalStructurePrimary says left"),
    "no hemisphere said": (
        lambda folder, values: write_hemispheres(folder, "", values, names=("one", "two"), say=False),
        "says neither",
    ),
    "a session without its right hemisphere": (
        lambda folder, values: [*write_hemispheres(folder, "a", values), write_hemispheres(folder, "b", values)[0]],
        "no partner",
    ),
    "a volume among them": (
        lambda folder, values: [
            *write_hemispheres(folder, "", values),
            nib.save(nib.Nifti1Image(np.ones((2, 2, 2)), np.eye(4)), folder / "v.nii") or folder / "v.nii",
        ],
        "of no surface",
    ),
    "labels": (
        lambda folder, values: [
            write_cifti(
                folder / "x.dlabel.nii",
                np.ones((1, len(axis("cortex")))),
                axis("cortex"),
                LabelAxis(["a"], [{1: ("b", (0, 0, 0, 1))}]),
            )
        ],
        "holds labels",
    ),
    "parcels": (
        lambda folder, values: [
            nib.Cifti2Image(
                np.ones((2, 3), "f4"),
                header=(ScalarAxis(["a", "b"]), ScalarAxis(["x", "y", "z"])),
            ).to_filename(folder / "x.dscalar.nii")
            or folder / "x.dscalar.nii"
        ],
        "axes Scalar x Scalar",
    ),
    "a truncated file": (
        lambda folder, values: [cut(write_cifti(folder / "x.dtseries.nii", values, axis("cortex")))],
        "truncated",
    ),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])
    return path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_end_in_one_line(braincorl, person, tmp_path, mistake):
    make, said = MISTAKES[mistake]
    betas = make(tmp_path, person[1][0])
    folder = person[0]
    result = braincorl(
        "fit", "--encoder", "ridge", "--betas", *betas, "--features", folder / "features.npz",
        "--trials", folder / "ses-1_trials.tsv", "--output-dir", tmp_path / "fit",
    )  # fmt: skip
    assert result.status == 2
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not Path(tmp_path / "fit").exists()


def test_another_surface_is_refused_by_score(braincorl, person, tmp_path):
    betas = []
    for number, values in enumerate(person[1], start=1):
        betas += write_hemispheres(tmp_path, f"_ses-{number}", values)
    fit(braincorl, person, betas, tmp_path / "fit")
    other = BrainModelAxis.from_surface(np.arange(20), 20, "CIFTI_STRUCTURE_CORTEX_LEFT")
    path = write_cifti(tmp_path / "other.dtseries.nii", person[1][0][:, :20], other)
    result = braincorl(
        "score", tmp_path / "fit", "--features", person[0] / "features.npz", "--betas", path,
        "--trials", person[0] / "ses-1_trials.tsv",
    )  # fmt: skip
    assert result.status == 2
    assert "20 vertices in the left hemisphere, but 13" in result.err


@pytest.mark.parametrize("number", [0, 1])
def test_one_hemisphere_alone_is_fitted_scored_and_mapped(braincorl, person, from_npy, tmp_path, number):
    """As its vertices are among those of both; the mask and regions of the other hemisphere are not looked at."""
    own = [slice(LEFT), slice(LEFT, None)][number]
    betas = [
        write_hemispheres(tmp_path, f"_ses-{session}", values)[number]
        for session, values in enumerate(person[1], start=1)
    ]
    regions = write_hemispheres(tmp_path, "_V1", (np.arange(LEFT + RIGHT) % 2).astype("f4"), ".shape.gii")
    made = fit(braincorl, person, betas, tmp_path / "fit", "--rois", *regions)
    np.testing.assert_array_equal(made.encoder.coef_, from_npy.encoder.coef_[own])
    np.testing.assert_array_equal(made.rois["V1"], (np.arange(LEFT + RIGHT) % 2 > 0)[own])
    assert (made.space.surface.left.size, made.space.surface.right.size) == [(LEFT, 0), (0, RIGHT)][number]
    (path,) = (tmp_path / "fit").glob("*_stat-ev_statmap.shape.gii")
    assert f"hemi-{'LR'[number]}" in path.name
    expected = np.load(next(from_npy.path.glob("*_stat-ev_statmap.npy")))[own]
    np.testing.assert_array_equal(nib.load(path).agg_data(), expected)
    np.testing.assert_array_equal(
        CiftiFile(next((tmp_path / "fit").glob("*_stat-ev_*.dscalar.nii"))).rows(0, 1)[0], expected
    )
    scored = braincorl(
        "score", tmp_path / "fit", "--features", person[0] / "features.npz", "--betas", *betas,
        "--trials", person[0] / "ses-1_trials.tsv", person[0] / "ses-2_trials.tsv", "--permutations", 50,
    )  # fmt: skip
    assert scored.status == 0, scored.err
    scores = tmp_path / "fit" / "scores"
    rates = fdr(read_maps(scores, made.config["prefix"], made.space)["p"])
    np.testing.assert_allclose(nib.load(next(scores.glob("*_stat-q_*.shape.gii"))).agg_data(), rates, rtol=1e-6)
    np.testing.assert_allclose(CiftiFile(next(scores.glob("*_stat-q_*.dscalar.nii"))).rows(0, 1)[0], rates, rtol=1e-6)
    both = write_hemispheres(tmp_path, "_mask", np.ones(LEFT + RIGHT))
    refused = braincorl(
        "fit", "--features", person[0] / "features.npz", "--betas", *betas, "--mask", *both, "--encoder", "ridge",
        "--trials", person[0] / "ses-1_trials.tsv", person[0] / "ses-2_trials.tsv", "--output-dir", tmp_path / "no",
    )  # fmt: skip
    assert refused.status == 2
    assert "or a mask of one hemisphere" in refused.err


def bids_tree(folder, person, kind):
    """Betas, mask, regions and noise of two sessions as derivatives, beside a volume's of another space."""
    (folder / "sub-01" / "func").mkdir(parents=True)
    (folder / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}'
    )
    at = folder / "sub-01" / "func"
    rng = np.random.default_rng(2)
    mask = (rng.random(LEFT + RIGHT) < 0.7).astype("f4")
    region, noise = (np.arange(LEFT + RIGHT) % 3 == 0).astype("f4"), rng.random(LEFT + RIGHT).astype("f4")
    others = {"desc-brain_mask": mask, "label-V1_mask": region, "stat-ncsnr_statmap": noise}
    for number, values in enumerate(person[1], start=1):
        stem = f"sub-01_ses-{number}_task-x"
        (at / f"{stem}_trials.tsv").write_text((person[0] / f"ses-{number}_trials.tsv").read_text())
        if kind == "cifti":
            write_cifti(at / f"{stem}_space-own_stat-effect_statmap.dtseries.nii", values, axis("cortex"))
        else:
            names = [f"{stem}_hemi-{side}_space-own_stat-effect_statmap" for side in "LR"]
            write_hemispheres(at, "", values, names=names)
    for end, values in others.items():
        stem = "sub-01_task-x"
        if kind == "cifti":
            write_cifti(at / f"{stem}_space-own_{end}.dscalar.nii", values[None], axis("cortex"), ScalarAxis(["one"]))
        else:
            names = [f"{stem}_hemi-{side}_space-own_{end}" for side in "LR"]
            write_hemispheres(at, "", values, ".shape.gii", names=names)
    nib.save(
        nib.Nifti1Image(np.ones((2, 2, 2), "f4"), np.eye(4)), at / "sub-01_task-x_space-T1w_desc-brain_mask.nii.gz"
    )
    return mask > 0, region, noise


@pytest.mark.parametrize("kind", ["gifti", "cifti"])
def test_surfaces_are_read_from_bids_derivatives(person, tmp_path, kind, braincorl):
    mask, region, noise = bids_tree(tmp_path / "bids", person, kind)
    subject = load_bids(tmp_path / "bids", "01")
    tables = [person[0] / f"ses-{number}_trials.tsv" for number in (1, 2)]
    np.save(tmp_path / "1.npy", person[1][0][:, mask])
    np.save(tmp_path / "2.npy", person[1][1][:, mask])
    expected = load_subject([tmp_path / "1.npy", tmp_path / "2.npy"], tables)
    assert subject.image_ids.tolist() == expected.image_ids.tolist()
    np.testing.assert_array_equal(subject.responses, expected.responses)
    np.testing.assert_array_equal(subject.rois["V1"], region[mask] > 0)
    np.testing.assert_allclose(subject.ncsnr, noise[mask])
    np.testing.assert_array_equal(np.r_[subject.space.surface.left, subject.space.surface.right], mask)
    prepared = braincorl("data", "prepare", "bids", tmp_path / "bids", "--subject", "01", "--output", tmp_path / "p.h5")
    assert prepared.status == 0, prepared.err
    np.testing.assert_allclose(load_prepared(tmp_path / "p.h5").responses, expected.responses, rtol=1e-6)


def test_kinds_of_betas_that_names_do_not_tell_apart_are_refused(person, tmp_path):
    for kind in ("gifti", "cifti"):
        bids_tree(tmp_path / kind, person, kind)
    for path in (tmp_path / "cifti" / "sub-01" / "func").glob("*effect*"):
        path.rename(tmp_path / "gifti" / "sub-01" / "func" / path.name)
    with pytest.raises(InputError, match=r"betas as \.d\*\.nii and as \.gii or \.mgh"):
        load_bids(tmp_path / "gifti", "01")
