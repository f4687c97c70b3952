import signal
import subprocess
import sys
import textwrap
import time

import h5py
import numpy as np
import pytest
from layouts import TinyAlgonauts, TinyGlmsingle
from nsd_writer import write_nsd_session

from braincorl.datasets import load_prepared, load_subject, prepare
from braincorl.datasets.algonauts import open_algonauts2023
from braincorl.datasets.load import open_subject
from braincorl.datasets.nsd.person import open_nsd
from braincorl.errors import FileFormatError, InputError, OutputError


def open_(nsd, **options):
    return open_nsd(nsd.root, 1, **({"sessions": [1, 2, 3]} | options))


def same(prepared, direct):
    assert prepared.name == direct.name
    assert prepared.image_ids.tolist() == direct.image_ids.tolist()
    np.testing.assert_array_equal(prepared.responses, direct.responses)
    np.testing.assert_array_equal(prepared.n_repeats, direct.n_repeats)
    np.testing.assert_array_equal(prepared.space.included, direct.space.included)
    np.testing.assert_array_equal(prepared.space.mask, direct.space.mask)
    np.testing.assert_array_equal(prepared.space.affine, direct.space.affine)
    assert list(prepared.rois) == list(direct.rois)
    for name, members in direct.rois.items():
        np.testing.assert_array_equal(prepared.rois[name], members)


@pytest.mark.parametrize("zscore", ["session", "none"])
@pytest.mark.parametrize("with_map", [True, False])
def test_a_prepared_person_is_the_person_that_is_loaded(nsd, tmp_path, zscore, with_map, monkeypatch):
    monkeypatch.setenv("BRAINCORL_MEMORY", f"{4 * 2750 * 4 * 20} B")  # several blocks
    monkeypatch.setattr("braincorl.datasets.trials.prepared.CHUNK_BYTES", 2000 * 4 * 7)
    if not with_map:
        (nsd.folder.betas / "ncsnr.nii.gz").unlink()
    recording = open_(nsd, zscore=zscore)
    direct = recording.load()
    prepared = load_prepared(prepare(recording, tmp_path / "p.h5"))
    same(prepared, direct)
    assert prepared.n_sessions == direct.n_sessions == 3
    np.testing.assert_array_equal(prepared.ncsnr, direct.ncsnr)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("p.h5")] == ["p.h5"]


def test_a_single_file_without_a_grid_or_with_blank_trials(tmp_path):
    tiny = TinyGlmsingle(tmp_path)
    tiny.trials.write_text(tiny.trials.read_text().replace("img3", "n/a"))
    for mask in (None, tiny.mask_path):
        recording = open_subject(tiny.npy, tiny.trials, mask)
        path = prepare(recording, tmp_path / f"{mask is None}.h5")
        same(load_prepared(path), load_subject(tiny.npy, tiny.trials, mask))


def test_a_large_baseline_hides_no_constant_voxel_and_changes_no_ceiling(tmp_path, rng):
    """Images of three, one and two trials, around 1e4."""
    index = np.arange(60).repeat(np.arange(60) % 3 + 1)
    trials = (1e4 + rng.standard_normal((60, 50))[index] + rng.standard_normal((index.size, 50))).astype("f4")
    trials[:, :20] = 1e4 + rng.standard_normal(20).astype("f4")
    np.save(tmp_path / "betas.npy", trials)
    (tmp_path / "trials.tsv").write_text("image\n" + "\n".join(f"img{i}" for i in index))
    recording = open_subject(tmp_path / "betas.npy", tmp_path / "trials.tsv")
    prepared = load_prepared(prepare(recording, tmp_path / "p.h5"))
    np.testing.assert_array_equal(prepared.space.included, np.arange(50) >= 20)
    np.testing.assert_array_equal(prepared.ncsnr, recording.load().ncsnr)


def test_a_person_on_a_surface(tmp_path):
    TinyAlgonauts(tmp_path)
    recording = open_algonauts2023(tmp_path, 3)
    path = prepare(recording, tmp_path / "p.h5")
    same(load_prepared(path), recording.load())
    part = load_prepared(path, voxels="V1d")
    direct = open_algonauts2023(tmp_path, 3, voxels="V1d").load()
    np.testing.assert_array_equal(part.responses, direct.responses)
    np.testing.assert_array_equal(part.space.surface.right, direct.space.surface.right)


def test_half_precision_halves_the_file(nsd, tmp_path):
    recording = open_(nsd, voxels="all")
    whole, half = prepare(recording, tmp_path / "a.h5"), prepare(recording, tmp_path / "b.h5", dtype="float16")
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    np.testing.assert_allclose(load_prepared(half).responses, load_prepared(whole).responses, rtol=1e-3, atol=1e-3)


def test_images_and_regions_are_a_choice(nsd, tmp_path):
    path = prepare(open_(nsd, voxels="all"), tmp_path / "p.h5")
    whole = load_prepared(path)
    part = load_prepared(path, images=whole.image_ids[[50, 3]], voxels=["FFA-1", "EBA"])
    columns = whole.rois["FFA-1"] | whole.rois["EBA"]
    np.testing.assert_array_equal(part.responses, whole.responses[[3, 50]][:, columns])
    np.testing.assert_array_equal(part.space.coordinates(), whole.space.coordinates()[columns])
    for wrong in ({"images": ["x"]}, {"voxels": "V9"}):
        with pytest.raises(InputError):
            load_prepared(path, **wrong)


def test_an_up_to_date_file_is_kept_and_a_changed_input_noticed(nsd, tmp_path):
    path = prepare(open_(nsd), tmp_path / "p.h5")
    first = path.stat().st_mtime_ns, path.read_bytes()
    calls = []
    prepare(open_(nsd), path, progress=lambda *done: calls.append(done))
    assert calls == []
    assert path.stat().st_mtime_ns == first[0]
    prepare(open_(nsd, zscore="none"), path)
    assert path.read_bytes() != first[1]
    prepare(open_(nsd), path)
    assert path.read_bytes() == first[1]
    changed = nsd.stored[2].reshape(750, -1) / 300.0
    changed[5] += 1
    write_nsd_session(nsd.folder, 2, changed, np.ones(nsd.stored[2].shape[1:], dtype=bool), np.eye(4))
    prepare(open_(nsd), path)
    assert path.read_bytes() != first[1]


class Stop(BaseException):
    pass


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(nsd, tmp_path):
    whole = prepare(open_(nsd), tmp_path / "whole.h5").read_bytes()
    path = tmp_path / "p.h5"

    def stop(done, total):
        if done > 750 and len(seen) == 0:
            seen.append(done)
            raise Stop

    seen = []
    with pytest.raises(Stop):
        prepare(open_(nsd), path, progress=stop)
    assert not path.exists()
    (first,) = [file for file in (tmp_path / "p.h5.parts").iterdir() if file.name == "0000"]
    written = first.stat().st_mtime_ns
    calls = []

    def watch(done, total):
        calls.append(done)
        if first.exists():
            assert first.stat().st_mtime_ns == written  # what is done is not done again

    prepare(open_(nsd), path, progress=watch)
    assert calls[0] == 750
    assert calls[-1] == 2 * 2250
    assert path.read_bytes() == whole


def test_killed_again_and_again_it_still_gives_the_same_bytes(nsd, tmp_path):
    path = tmp_path / "p.h5"
    whole = prepare(open_(nsd, voxels="all"), tmp_path / "whole.h5").read_bytes()
    program = textwrap.dedent(f"""
        import sys, time
        from braincorl.datasets import prepare
        from braincorl.datasets.nsd.person import open_nsd
        recording = open_nsd({str(nsd.root)!r}, 1, sessions=[1, 2, 3], voxels="all")
        print("ready", flush=True)
        prepare(recording, {str(path)!r}, progress=lambda *_: time.sleep(0.02))
    """)
    for delay in (0.0, 0.02, 0.05):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    prepare(open_(nsd, voxels="all"), path)
    assert path.read_bytes() == whole


def test_parts_of_other_inputs_are_not_used(nsd, tmp_path):
    path = tmp_path / "p.h5"
    whole = prepare(open_(nsd), tmp_path / "whole.h5").read_bytes()

    def stop(done, total):
        if done > 750:
            raise Stop

    with pytest.raises(Stop):
        prepare(open_(nsd, voxels="all"), path, progress=stop)
    prepare(open_(nsd), path)
    assert path.read_bytes() == whole


def test_other_files_are_not_taken_for_prepared_ones(nsd, tmp_path):
    (tmp_path / "a.h5").write_text("hello")
    with pytest.raises(FileFormatError, match="not a readable HDF5"):
        load_prepared(tmp_path / "a.h5")
    tiny = TinyGlmsingle(tmp_path)
    with pytest.raises(FileFormatError, match="not a braincorl-prepared/2 file"):
        load_prepared(tiny.hdf5)
    with pytest.raises(OutputError, match="does not exist"):
        prepare(open_(nsd), tmp_path / "no" / "p.h5")
    (tmp_path / "b.h5.parts").mkdir()
    (tmp_path / "b.h5.parts" / "mine").write_text("mine")
    with pytest.raises(OutputError, match="did not write"):
        prepare(open_(nsd), tmp_path / "b.h5")


def test_a_file_that_is_not_a_prepared_person_is_never_replaced(nsd, tmp_path):
    with h5py.File(tmp_path / "thesis.h5", "w") as file:
        file["results"] = np.arange(3)
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "link.h5").symlink_to(tmp_path / "nothing")
    (tmp_path / "text.h5").write_text("notes")
    (tmp_path / "empty.h5").touch()
    before = {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    for name, message in (
        ("thesis.h5", "is no prepared person"),
        ("text.h5", "no prepared"),
        ("empty.h5", "no prepared"),
        ("folder.h5", "is a folder"),
        ("link.h5", "a link"),
    ):
        with pytest.raises(OutputError, match=message):
            prepare(open_(nsd), tmp_path / name)
    assert {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()} == before
