"""What is fetched of NSD: just what a person needs, and `load_nsd` reads it as it reads the source."""

import numpy as np
import pytest

pytest.importorskip("moto", reason="moto, the local S3 server, is not installed (uv sync installs it)")

from layouts import NAMES

from braincorl.datasets import fetch_nsd, load_nsd
from braincorl.datasets.download.downloads import RECORD
from braincorl.datasets.nsd.fetching import NsdSelection, plan_nsd
from braincorl.errors import InputError

BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"
ROI = "nsddata/ppdata/subj01/func1pt8mm/roi"
LABEL = "nsddata/freesurfer/{}/label"
EXPERIMENT = "nsddata/experiments/nsd"
DESIGN = {f"{EXPERIMENT}/nsd_expdesign.mat", f"{EXPERIMENT}/nsd_stim_info_merged.csv"}


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def planned(bucket, folder, subjects=(1,), **choice):
    downloads = plan_nsd(folder, NsdSelection(subjects, **choice), endpoint_url=bucket.url)
    return [transfer.file.key for transfer in downloads.transfers]


@pytest.fixture
def mirror(bucket):
    """A bucket with files whose content does not matter."""
    for key in (*DESIGN, f"{ROI}/prf-visualrois.nii.gz", f"{BETAS}/ncsnr.nii.gz", f"{BETAS}/betas_session01.nii.gz"):
        bucket.put(key, b"x")
    return bucket


@pytest.mark.parametrize("container", [".nii.gz", ".hdf5"])
def test_what_is_fetched_loads_as_the_source_and_is_no_more_than_needed(make_nsd, bucket, tmp_path, container):
    source = make_nsd(container=container)
    bucket.fill(source.root)
    for key in DESIGN:  # behind a link, which filling does not follow
        bucket.put(key, (source.root / key).read_bytes())
    for other in (f"{BETAS}/R2.nii.gz", f"{BETAS}/betas_session01.mat", f"{ROI}/other.nii.gz", f"{EXPERIMENT}/x.mp4"):
        bucket.put(other, b"not needed")
    out = tmp_path / "fetched"
    told = []
    options = {"sessions": [1, 3], "container": container, "accept_terms": True, "endpoint_url": bucket.url}
    paths = fetch_nsd(out, 1, **options, progress=lambda done, total: told.append(done / total))
    assert told[-1] == 1
    assert {path.relative_to(out).as_posix() for path in paths} == files(out) - {RECORD}
    atlases = {f"{ROI}/{atlas}.nii.gz" for atlas in NAMES} | {f"{LABEL.format('subj01')}/{a}.mgz.ctab" for a in NAMES}
    betas = {
        f"{BETAS}/{name}" for name in (f"betas_session01{container}", f"betas_session03{container}", "ncsnr.nii.gz")
    }
    assert files(out) - {RECORD} == DESIGN | atlases | betas
    fetched, direct = (load_nsd(root, 1, sessions=[1, 3]) for root in (out, source.root))
    np.testing.assert_array_equal(fetched.responses, direct.responses)
    np.testing.assert_array_equal(fetched.ncsnr, direct.ncsnr)
    assert list(fetched.rois) == list(direct.rois)


def test_hemispheres_and_common_colour_tables_are_taken_where_there_is_nothing_better(mirror, tmp_path):
    extra = [f"{ROI}/{side}.floc-faces.nii.gz" for side in ("lh", "rh")]
    extra += [f"{LABEL.format('fsaverage')}/floc-faces.mgz.ctab", f"{LABEL.format('subj01')}/prf-visualrois.mgz.ctab"]
    for key in (*extra, f"{ROI}/lh.prf-visualrois.nii.gz", f"{LABEL.format('fsaverage')}/prf-visualrois.mgz.ctab"):
        mirror.put(key, b"x")
    keys = set(planned(mirror, tmp_path, sessions=(1,)))
    volumes = {f"{ROI}/prf-visualrois.nii.gz", f"{BETAS}/ncsnr.nii.gz", f"{BETAS}/betas_session01.nii.gz"}
    assert keys == DESIGN | volumes | set(extra)


def test_the_surface_has_a_file_for_each_hemisphere(mirror, tmp_path):
    folder = BETAS.replace("func1pt8mm", "fsaverage")
    names = [f"{side}.{name}.mgh" for name in ("ncsnr", "betas_session02") for side in ("lh", "rh")]
    for name in names:
        mirror.put(f"{folder}/{name}", b"x")
    keys = planned(mirror, tmp_path, sessions=(2,), space="fsaverage")
    assert set(keys) == DESIGN | {f"{folder}/{name}" for name in names}


def test_several_subjects_share_the_experiment(mirror, tmp_path):
    mirror.put(f"{BETAS}/betas_session01.nii.gz".replace("subj01", "subj08"), b"x")
    keys = planned(mirror, tmp_path, (8, 1), sessions=(1,))
    assert len(keys) == len(set(keys)) == 6
    assert sum("betas_session" in key for key in keys) == 2


def test_images_come_on_request_only(mirror, tmp_path):
    key = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    mirror.put(key, b"x")
    assert key not in planned(mirror, tmp_path, sessions=(1,))
    assert key in planned(mirror, tmp_path, sessions=(1,), images=True)


def test_what_the_bucket_lacks_is_said(mirror, tmp_path, caplog):
    mirror.delete(f"{BETAS}/ncsnr.nii.gz")
    planned(mirror, tmp_path, sessions=(1,))
    assert "lacks the regions floc-bodies, floc-faces" in caplog.text
    assert "lacks ncsnr.nii.gz; ceilings will rest on repeats" in caplog.text
    with pytest.raises(InputError, match=r"no \.nii\.gz betas of subj01's sessions 2-40 in nsddata_betas"):
        planned(mirror, tmp_path)
    with pytest.raises(InputError, match=r"no \.hdf5 betas"):
        planned(mirror, tmp_path, sessions=(1,), container=".hdf5")
    mirror.delete(f"{EXPERIMENT}/nsd_expdesign.mat")
    with pytest.raises(InputError, match=r"lacks nsddata/experiments/nsd/nsd_expdesign.mat: is it a mirror"):
        planned(mirror, tmp_path, sessions=(1,))


@pytest.mark.parametrize(
    ("subjects", "options", "words"),
    [
        (1, {"accept_terms": False}, "Data Access Agreement"),
        (9, {}, "subject must be 1 to 8"),
        ([], {}, "subjects is empty"),
        (4, {"sessions": [31]}, "sessions must be among 1 to 30"),
        (1, {"space": "MNI"}, "space must be"),
        (1, {"container": ".mat"}, "container must be"),
        (1, {"parallel": 0}, "parallel must be 1 to 16"),
        (1, {"endpoint_url": "nonsense"}, "cannot be read .*nonsense"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path, subjects, options, words):
    with pytest.raises(InputError, match=words):
        fetch_nsd(tmp_path / "out", subjects, **{"accept_terms": True, **options})
    assert list(tmp_path.iterdir()) == []
