"""LAION-fMRI and MOSAIC from their buckets, on a local S3 server; held sessions are never asked for."""

import numpy as np
import pytest

pytest.importorskip("moto", reason="moto, the local S3 server, is not installed (uv sync installs it)")

from laion import TinyLaion
from s3 import LocalBucket

from braincorl.cli.main import main
from braincorl.datasets import fetch_laion_fmri, fetch_mosaic, load_laion_fmri
from braincorl.datasets.download.public_fetch import LAION_BUCKET, LAION_REGION, MOSAIC_BUCKET, MOSAIC_REGION
from braincorl.datasets.mosaic import BETAS
from braincorl.errors import InputError


@pytest.fixture
def laion(s3_server, tmp_path):
    """The bucket, with a held session that answers 403, images, and files that nobody needs."""
    tiny = TinyLaion(tmp_path / "source", sessions=(1, 2))
    bucket = LocalBucket(s3_server, LAION_BUCKET, LAION_REGION).emptied()
    bucket.fill(tiny.root)
    for path in tiny.paths(31):
        bucket.put(path.relative_to(tiny.root).as_posix(), b"held back", public=False)
    bucket.put("stimuli/images/secret.jpg", b"an image", public=False)
    bucket.put(f"derivatives/glmsingle-tedana/{tiny.subject}/ses-01/func/model.h5", b"large")
    return tiny, bucket


def test_what_was_fetched_is_what_is_there(laion, tmp_path, capsys):
    tiny, bucket = laion
    command = ["data", "fetch", "laion-fmri", "--subject", "1", "--output", str(tmp_path / "out")]
    assert main([*command, "--endpoint-url", bucket.url, "--accept-terms"]) == 0
    assert capsys.readouterr().out.startswith("Terms of LAION-fMRI")
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not [name for name in files if "ses-31" in name or "stimuli" in name or "model.h5" in name]
    fetched, direct = (load_laion_fmri(root, 1) for root in (tmp_path / "out", tiny.root))
    np.testing.assert_array_equal(fetched.responses, direct.responses)
    np.testing.assert_array_equal(fetched.ncsnr, direct.ncsnr)
    assert list(fetched.rois) == list(direct.rois)


def test_what_cannot_be_had_is_said(laion, tmp_path):
    _, bucket = laion
    options = {"accept_terms": True, "endpoint_url": bucket.url}
    for changes, said in (
        ({"sessions": [1, 33]}, "33 of LAION-fMRI are held back"),
        ({"sessions": [7]}, "no betas of sub-01's sessions 7"),
        ({"accept_terms": False}, "pass accept_terms=True"),
    ):
        with pytest.raises(InputError, match=said):
            fetch_laion_fmri(tmp_path / "out", 1, **(options | changes))
    assert not (tmp_path / "out").exists()


def test_mosaic_is_fetched_by_the_names_of_its_files(s3_server, tmp_path, capsys):
    key = f"{BETAS}/NaturalScenesDataset/sub-01_NSD.hdf5"
    bucket = LocalBucket(s3_server, MOSAIC_BUCKET, MOSAIC_REGION).emptied()
    for name in (key, key.replace("01", "02"), "stimulus_info/nsd_stiminfo.tsv"):
        bucket.put(name, name.encode())
    command = ["data", "fetch", "mosaic", "--output", str(tmp_path / "out"), "--endpoint-url", bucket.url]
    assert main([*command, "--subject", "sub-01_NSD", "--accept-terms"]) == 0
    assert capsys.readouterr().out.startswith("Terms of MOSAIC")
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there - {".braincorl-fetch.json"} == {key, "stimulus_info/nsd_stiminfo.tsv"}
    for people, said in (("sub-03_NSD", "has no fMRIPrep"), ("sub-09_NSD", "people 1 to 8"), ("1", "as in sub-01_NSD")):
        assert main([*command, "--subject", people, "--accept-terms", "--quiet"]) == 2
        assert said in capsys.readouterr().err


def laion_people(s3_server, folder):
    """One person of LAION-fMRI in a bucket, and how to fetch them; the last is the key of a session's betas."""
    tiny = TinyLaion(folder / "source", sessions=(1, 2))
    bucket = LocalBucket(s3_server, LAION_BUCKET, LAION_REGION).emptied()
    bucket.fill(tiny.root)
    key = tiny.paths(2)[0].relative_to(tiny.root).as_posix()
    large = np.random.default_rng(0).bytes(3 * 2**20)
    bucket.put(key, large)
    return bucket, lambda **options: fetch_laion_fmri(folder / "out", 1, **options), key, large


def mosaic_people(s3_server, folder):
    """Two people of MOSAIC in a bucket, and how to fetch them; the last is the key of the second."""
    keys = [f"{BETAS}/NaturalScenesDataset/sub-{number:02d}_NSD.hdf5" for number in (1, 2)]
    bucket = LocalBucket(s3_server, MOSAIC_BUCKET, MOSAIC_REGION).emptied()
    large = np.random.default_rng(1).bytes(3 * 2**20)
    for key, content in zip(keys, (b"small", large), strict=True):
        bucket.put(key, content)
    bucket.put("stimulus_info/nsd_stiminfo.tsv", b"filename")
    people = ["sub-01_NSD", "sub-02_NSD"]
    return bucket, lambda **options: fetch_mosaic(folder / "out", people, **options), keys[1], large


@pytest.mark.parametrize("made", [laion_people, mosaic_people])
def test_a_fetch_that_is_interrupted_goes_on_where_it_was(s3_server, tmp_path, made):
    bucket, fetch, key, large = made(s3_server, tmp_path)
    options = {"accept_terms": True, "parallel": 1, "endpoint_url": bucket.url}

    def interrupt(done, total):
        if done > total - 2 * 2**20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(progress=interrupt, **options)
    assert not (tmp_path / "out" / key).exists()
    (part,) = (tmp_path / "out" / key).parent.glob("*.hdf5.*.partial" if key.endswith("5") else "*statmap*.partial")
    have = part.stat().st_size
    there = {path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".partial"}
    assert 0 < have < len(large)
    told = []
    files = fetch(progress=lambda *counts: told.append(counts), **options)
    assert told[0][0] >= have, "what was there counts as there"
    assert told[-1][0] == told[-1][1]
    assert (tmp_path / "out" / key).read_bytes() == large
    assert there <= {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert all(path.is_file() for path in files)
    assert not list((tmp_path / "out").rglob("*.partial"))


@pytest.mark.parametrize("made", [laion_people, mosaic_people])
def test_what_the_bucket_does_not_give_is_named_and_the_rest_is_kept(s3_server, tmp_path, made):
    """A session, or a person, that is held back since: 403 on the file, though it is listed."""
    bucket, fetch, key, large = made(s3_server, tmp_path)
    bucket.put(key, large, public=False)
    options = {"accept_terms": True, "parallel": 1, "endpoint_url": bucket.url}
    with pytest.raises(InputError, match=f"does not give {key} to everybody .*: leave it out") as caught:
        fetch(**options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / key).exists()
    kept = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".gz", ".hdf5")]
    assert kept
    bucket.put(key, large)  # given to everybody again
    fetch(**options)
    assert (tmp_path / "out" / key).read_bytes() == large
