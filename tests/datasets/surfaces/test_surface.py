"""People on a surface: .mgh and GIFTI in, GIFTI and CIFTI out."""

import nibabel as nib
import numpy as np
import pytest
from layouts import mean_by_image, within_sessions
from nilearn.datasets import load_fsaverage
from nilearn.surface import SurfaceImage, load_surf_data

from braincorl.analysis import save_map
from braincorl.datasets import Surface, VoxelSpace, load_nsd, load_surface
from braincorl.errors import FileFormatError, InputError
from braincorl.fits.folder import read_space, write_space

COUNTS = {"lh": 13, "rh": 17}


def write_mgh(path, values):
    """Trials (n, n_vertices), or one map (n_vertices,), as FreeSurfer has them."""
    volume = values.T[:, None, None] if values.ndim == 2 else values[:, None, None]
    nib.save(nib.MGHImage(volume.astype("f4"), np.eye(4)), path)


def write_gifti(path, values):
    arrays = [
        nib.gifti.GiftiDataArray(trial.astype("f4"), intent="NIFTI_INTENT_NONE") for trial in np.atleast_2d(values)
    ]
    nib.save(nib.GiftiImage(darrays=arrays), path)


@pytest.fixture
def sessions(rng):
    return [{side: rng.standard_normal((6, n)).astype("f4") + 10 * s for side, n in COUNTS.items()} for s in (1, 2)]


SHOWN = ["a", "b", "c", "a", "d", "e", "b", "a", "f", "c", "g", "d"]


@pytest.mark.parametrize(("ending", "write"), [(".mgh", write_mgh), (".mgz", write_mgh), (".func.gii", write_gifti)])
def test_known_betas_come_out_of_either_container(tmp_path, sessions, ending, write):
    paths = {side: [] for side in COUNTS}
    for number, session in enumerate(sessions, start=1):
        for side, values in session.items():
            paths[side].append(tmp_path / f"{side}_ses-{number}{ending}")
            write(paths[side][-1], values)
    table = tmp_path / "trials.tsv"
    table.write_text("image\n" + "\n".join(SHOWN))
    masks = {side: np.arange(n) % 3 != 0 for side, n in COUNTS.items()}
    for side, mask in masks.items():
        write_mgh(tmp_path / f"{side}.mask.mgh", mask.astype("f4"))
        write_mgh(tmp_path / f"{side}.V1.mgh", (np.arange(mask.size) < 5).astype("f4"))
    pair = lambda name: (tmp_path / f"lh.{name}.mgh", tmp_path / f"rh.{name}.mgh")  # noqa: E731
    subject = load_surface(
        paths["lh"], paths["rh"], table, mask=pair("mask"), rois={"V1": pair("V1")}, zscore="session"
    )
    trials = np.concatenate([np.hstack([s["lh"][:, masks["lh"]], s["rh"][:, masks["rh"]]]) for s in sessions])
    expected = mean_by_image(SHOWN, within_sessions(trials, [6, 6]))
    assert subject.image_ids.tolist() == list(expected)
    np.testing.assert_allclose(subject.responses, list(expected.values()), rtol=1e-4, atol=1e-5)
    inside = np.concatenate([(np.arange(n) < 5)[masks[side]] for side, n in COUNTS.items()])
    np.testing.assert_array_equal(subject.rois["V1"], inside)
    np.testing.assert_array_equal(subject.space.surface.right, masks["rh"])


def test_nsd_on_fsaverage_is_not_scaled(nsd, rng):
    folder = nsd.root / "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR"
    folder.mkdir(parents=True)
    trials = {side: rng.standard_normal((1500, n)).astype("f4") for side, n in COUNTS.items()}
    trials["rh"][:, 4] = np.nan  # a vertex without data
    ncsnr = {side: rng.random(n).astype("f4") for side, n in COUNTS.items()}
    for side, values in trials.items():
        for number in (1, 2):
            write_mgh(folder / f"{side}.betas_session{number:02d}.mgh", values[(number - 1) * 750 : number * 750])
        write_mgh(folder / f"{side}.ncsnr.mgh", ncsnr[side])
    subject = load_nsd(nsd.root, 1, space="fsaverage", voxels="all", sessions=[1, 2], zscore="none")
    y = np.hstack([trials["lh"], trials["rh"]])
    keep = np.isfinite(y).all(axis=0)
    expected = mean_by_image(nsd.shown([1, 2]), y[:, keep])
    np.testing.assert_allclose(subject.responses, list(expected.values()), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(subject.space.included, keep)
    np.testing.assert_allclose(subject.ncsnr, np.concatenate(list(ncsnr.values()))[keep])
    part = load_nsd(nsd.root, 1, space="fsaverage", voxels=np.arange(30) < 7, sessions=[1, 2], zscore="none")
    np.testing.assert_array_equal(part.responses, subject.responses[:, :7])
    with pytest.raises(InputError, match="bool array of 30 vertices"):
        load_nsd(nsd.root, 1, space="fsaverage", sessions=[1, 2])


@pytest.fixture
def space(rng):
    surface = Surface(rng.random(COUNTS["lh"]) < 0.6, rng.random(COUNTS["rh"]) < 0.6, "fsaverage")
    included = np.ones(surface.n_chosen, dtype=bool)
    included[3] = False
    return VoxelSpace(included, surface=surface)


@pytest.mark.parametrize("outside", ["nan", "zero"])
def test_maps_go_out_as_gifti_and_cifti(space, rng, tmp_path, outside):
    values = rng.standard_normal(space.n_voxels).astype("f4")
    path = save_map(values, space, tmp_path / "sub-01_stat-ev_statmap.nii.gz", {"Units": "1"}, outside)
    assert path.name == "sub-01_stat-ev_statmap.dscalar.nii"
    full = space.expand(values)
    cifti = nib.load(path)
    np.testing.assert_array_equal(np.asarray(cifti.dataobj)[0], full)
    brain = cifti.header.get_axis(1)
    for _, rows, model in brain.iter_structures():
        assert model.nvertices[model.name[0]] in COUNTS.values()
        chosen = space.surface.left if "LEFT" in model.name[0] else space.surface.right
        np.testing.assert_array_equal(model.vertex, np.flatnonzero(chosen))
        assert (rows.stop or full.size) - (rows.start or 0) == chosen.sum()
    split = space.surface.left.sum()
    for side, chosen, half in (("L", space.surface.left, full[:split]), ("R", space.surface.right, full[split:])):
        gifti = nib.load(tmp_path / f"sub-01_hemi-{side}_stat-ev_statmap.shape.gii")
        np.testing.assert_array_equal(gifti.agg_data()[chosen], half)
        np.testing.assert_array_equal(np.unique(gifti.agg_data()[~chosen]), [np.nan if outside == "nan" else 0])
    assert (tmp_path / "sub-01_stat-ev_statmap.json").is_file()


def test_a_surface_and_its_regions_come_back(space, tmp_path, rng):
    rois = {"V1": rng.random(space.n_voxels) < 0.5}
    write_space(tmp_path / "s.safetensors", space, rois)
    read, regions = read_space(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(read.surface.left, space.surface.left)
    np.testing.assert_array_equal(read.surface.right, space.surface.right)
    assert read.surface.name == "fsaverage"
    np.testing.assert_array_equal(regions["V1"], rois["V1"])


def test_mistakes_on_surfaces(tmp_path, sessions):
    for side, values in sessions[0].items():
        write_mgh(tmp_path / f"{side}.mgh", values)
    write_mgh(tmp_path / "short.mgh", sessions[0]["rh"][:4])
    (tmp_path / "bad.gii").write_text("<GIFTI")
    write_mgh(tmp_path / "third.mgh", 2 * sessions[0]["lh"])
    write_mgh(tmp_path / "second.mgh", 2 * sessions[0]["rh"])
    table = tmp_path / "t.tsv"
    table.write_text("image\n" + "\n".join(SHOWN[:6]))
    left, right = tmp_path / "lh.mgh", tmp_path / "rh.mgh"
    with pytest.raises(InputError, match="17 vertices, but the surface has 13"):
        load_surface([left, tmp_path / "second.mgh"], [right, tmp_path / "third.mgh"], table)
    with pytest.raises(InputError, match=r"6 trials but .* has 4"):
        load_surface(left, tmp_path / "short.mgh", table)
    with pytest.raises(InputError, match="left has 1 files but right has 2"):
        load_surface(left, [right, right], table)
    with pytest.raises(FileFormatError, match="not a readable surface file"):
        load_surface(tmp_path / "bad.gii", right, table)
    with pytest.raises(InputError, match="one value per vertex"):
        load_surface(left, right, table, mask=(left, right))


def test_nilearn_reads_the_surface_maps_back(rng, tmp_path):
    """All of fsaverage5, so that nilearn has meshes to put the values on."""
    surface = Surface(rng.random(10_242) < 0.6, rng.random(10_242) < 0.6, "fsaverage5")
    space = VoxelSpace(np.arange(surface.n_chosen) != 3, surface=surface)
    values = rng.standard_normal(space.n_voxels).astype("f4")
    save_map(values, space, tmp_path / "sub-01_stat-ev_statmap.nii.gz")
    data = {side: tmp_path / f"sub-01_hemi-{side[0].upper()}_stat-ev_statmap.shape.gii" for side in ("left", "right")}
    image = SurfaceImage(mesh=load_fsaverage("fsaverage5")["pial"], data=data)
    left, right = image.data.parts["left"], image.data.parts["right"]
    np.testing.assert_array_equal(np.r_[left[surface.left], right[surface.right]], space.expand(values))
    assert np.isnan(left[~surface.left]).all()
    np.testing.assert_array_equal(load_surf_data(data["left"]), left)
    # Structures and vertex numbers say where a value of the CIFTI file belongs.
    cifti = nib.load(tmp_path / "sub-01_stat-ev_statmap.dscalar.nii")
    assert cifti.get_data_dtype() == np.float32
    brain = cifti.header.get_axis(1)
    for side, name in (("left", "CIFTI_STRUCTURE_CORTEX_LEFT"), ("right", "CIFTI_STRUCTURE_CORTEX_RIGHT")):
        rows = brain.name == name
        whole = np.full(10_242, np.nan, "f4")
        whole[brain.vertex[rows]] = np.asarray(cifti.dataobj)[0, rows]
        np.testing.assert_array_equal(whole, image.data.parts[side])
        structure = nib.load(data[side]).meta["AnatomicalStructurePrimary"]
        assert structure == f"Cortex{side.capitalize()}"
