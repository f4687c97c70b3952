"""Downloads from a local S3 server: stopped, cut, changed, damaged, in the way; in the end the bucket's bytes."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("moto", reason="moto, the local S3 server, is not installed (uv sync installs it)")

from braincorl.datasets.download import downloads as download
from braincorl.datasets.download.bucket import Bucket, RemoteFile
from braincorl.datasets.download.downloads import RECORD, Downloads
from braincorl.datasets.nsd.fetching import BUCKET, REGION
from braincorl.errors import InputError, OutputError

KEY = "folder/large.bin"
CONTENT = np.random.default_rng(0).bytes(12 * 2**20)

FETCH = """
import os, resource, signal, sys
from pathlib import Path
from braincorl.datasets.download.bucket import Bucket
from braincorl.datasets.download.downloads import Downloads
from braincorl.datasets.nsd.fetching import BUCKET, REGION
url, folder, how = sys.argv[1:]
if how == "full":  # as on a full disk, a write fails
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * 2**20, 5 * 2**20))
def progress(done, total):
    if how == "killed" and done > total / 3:
        os.kill(os.getpid(), signal.SIGKILL)
bucket = Bucket(BUCKET, REGION, endpoint_url=url)
Downloads(bucket, list(bucket.files("").values()), Path(folder)).run(progress=progress)
"""


def fetch(bucket, folder, **options):
    """Download everything; returns what the progress was told."""
    told = []
    remote = bucket.open()
    downloads = Downloads(remote, list(remote.files("").values()), folder)
    downloads.run(progress=lambda done, total: told.append((done, total)), **options)
    return told


def partials(folder):
    return sorted(folder.rglob("*.partial"))


@pytest.fixture
def large(bucket):
    """A file that was uploaded in pieces, so that nobody knows its MD5."""
    bucket.put_in_pieces(KEY, [CONTENT[: 6 * 2**20], CONTENT[6 * 2**20 :]])
    return bucket


def test_files_arrive_whole_and_complete_ones_are_left_alone(large, tmp_path):
    large.put("a.txt", b"small")
    large.put("empty", b"")
    told = fetch(large, tmp_path)
    total = len(CONTENT) + 5
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert (tmp_path / KEY).read_bytes() == CONTENT
    assert (tmp_path / "a.txt").read_bytes() == b"small"
    assert (tmp_path / "empty").read_bytes() == b""
    assert partials(tmp_path) == []
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert fetch(large, tmp_path) == [(total, total)]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(("how", "status"), [("killed", -signal.SIGKILL), ("full", 1)])
def test_a_download_that_was_stopped_goes_on_where_it_was(large, tmp_path, how, status):
    done = subprocess.run(
        [sys.executable, "-c", FETCH, large.url, str(tmp_path), how], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    if how == "full":
        assert "was not written: File too large. What has come is kept: run again to go on." in done.stderr
    assert not (tmp_path / KEY).exists()
    (partial,) = partials(tmp_path)
    have = partial.stat().st_size
    assert 0 < have < len(CONTENT)
    told = fetch(large, tmp_path)
    assert told[0] == (have, len(CONTENT))
    assert (tmp_path / KEY).read_bytes() == CONTENT
    assert partials(tmp_path) == []


@pytest.mark.parametrize("have", [0, 1, 2**20, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 3])
def test_any_part_is_completed_and_what_is_too_long_begins_anew(large, tmp_path, have):
    (remote,) = large.open().files("").values()
    (transfer,) = Downloads(large.open(), [remote], tmp_path).transfers
    transfer.partial.parent.mkdir()
    transfer.partial.write_bytes((CONTENT + b"end")[:have])
    assert fetch(large, tmp_path)[0][0] == (have if have <= len(CONTENT) else 0)
    assert (tmp_path / KEY).read_bytes() == CONTENT


def test_a_part_of_an_earlier_content_is_dropped(large, tmp_path):
    remote = large.open()
    (transfer,) = Downloads(remote, list(remote.files("").values()), tmp_path).transfers
    transfer.partial.parent.mkdir()
    transfer.partial.write_bytes(CONTENT[:1000])
    large.put(KEY, b"new content")
    assert fetch(large, tmp_path)[0] == (0, 11)
    assert (tmp_path / KEY).read_bytes() == b"new content"
    assert partials(tmp_path) == []


@pytest.mark.parametrize("new", [b"12345", b"another length"])
def test_a_download_that_is_outdated_is_replaced(bucket, tmp_path, new):
    bucket.put("a.txt", b"first")
    fetch(bucket, tmp_path)
    bucket.put("a.txt", new)
    assert fetch(bucket, tmp_path)[0] == (0, len(new))
    assert (tmp_path / "a.txt").read_bytes() == new


def test_a_download_that_was_truncated_since_is_replaced(large, tmp_path):
    fetch(large, tmp_path)
    os.truncate(tmp_path / KEY, 1000)
    fetch(large, tmp_path)
    assert (tmp_path / KEY).read_bytes() == CONTENT


def test_a_change_during_the_download_is_noticed(large, tmp_path):
    remote = large.open()
    downloads = Downloads(remote, list(remote.files("").values()), tmp_path)
    large.put(KEY, b"changed after it was listed")
    with pytest.raises(InputError, match=r"large.bin changed in the bucket while it was downloaded: run again"):
        downloads.run()
    fetch(large, tmp_path)
    assert (tmp_path / KEY).read_bytes() == b"changed after it was listed"


def test_foreign_files_are_kept_if_they_can_be_the_buckets_and_refused_otherwise(large, tmp_path):
    large.put("a.txt", b"small")
    (tmp_path / "a.txt").write_bytes(b"small")
    (tmp_path / KEY).parent.mkdir()
    (tmp_path / KEY).write_bytes(bytes(len(CONTENT)))  # nobody knows its MD5: the size must do
    assert fetch(large, tmp_path) == [(len(CONTENT) + 5,) * 2]
    for foreign in (b"other", b"longer"):
        (tmp_path / "a.txt").write_bytes(foreign)
        with pytest.raises(OutputError, match=r"a.txt is not the bucket's file \(5 bytes\)"):
            fetch(large, tmp_path)
        assert (tmp_path / "a.txt").read_bytes() == foreign
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match="is not the bucket's file"):
        fetch(large, tmp_path)


def test_a_file_that_appears_meanwhile_is_not_replaced(bucket, tmp_path):
    bucket.put("a.txt", b"small")
    remote = bucket.open()
    downloads = Downloads(remote, list(remote.files("").values()), tmp_path)
    (tmp_path / "a.txt").write_bytes(b"mine")
    with pytest.raises(OutputError, match="appeared while it was downloaded"):
        downloads.run()
    assert (tmp_path / "a.txt").read_bytes() == b"mine"


def test_damage_is_noticed_where_the_bucket_knows_the_md5(bucket, tmp_path):
    bucket.put("a.txt", b"whole content")
    (tmp_path / f"a.txt.{hashlib.md5(b'whole content').hexdigest()}.partial").write_bytes(b"WHOLE")
    with pytest.raises(OutputError, match=r"a.txt arrived damaged \(its MD5 is wrong\)"):
        fetch(bucket, tmp_path)
    assert not (tmp_path / "a.txt").exists()
    fetch(bucket, tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == b"whole content"


def test_two_runs_do_not_write_into_one_file(bucket, tmp_path):
    bucket.put("a.txt", b"small")
    remote = bucket.open()
    downloads = Downloads(remote, list(remote.files("").values()), tmp_path)
    with downloads.transfers[0].partial.open("ab") as handle:
        download.lock_file(handle, tmp_path)
        with pytest.raises(OutputError, match="is being written by another run"):
            downloads.run()


def test_the_disk_is_asked_first(bucket, tmp_path):
    downloads = Downloads(bucket.open(), [RemoteFile("a", 10**18, "e")], tmp_path / "new" / "folder")
    with pytest.raises(OutputError, match=r"free, but 1000000000.0 GB are needed"):
        downloads.run()
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_public_are_named_in_one_line(bucket, tmp_path):
    bucket.put("secret.txt", b"small", public=False)
    with pytest.raises(InputError, match=r"natural-scenes-dataset does not give secret.txt to everybody .*Forbidden"):
        fetch(bucket, tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        Bucket("no-such-bucket", REGION, endpoint_url=bucket.url).files("")


class CuttingProxy:
    """Passes connections on to a server, and cuts each after so many bytes of answer."""

    def __init__(self, url, n_bytes):
        self._target = url.removeprefix("http://").split(":")
        self._n_bytes = n_bytes
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client):
        with client, socket.create_connection((self._target[0], int(self._target[1]))) as server:
            server.sendall(client.recv(2**16))
            left = self._n_bytes
            while left > 0 and (block := server.recv(min(left, 2**16))):
                client.sendall(block)
                left -= len(block)
            client.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.mark.parametrize(("n_bytes", "arrives"), [(5 * 2**20, True), (100, False)])
def test_connections_that_break_are_taken_up_again_and_given_up_in_the_end(
    large, tmp_path, monkeypatch, n_bytes, arrives
):
    monkeypatch.setattr(download, "FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    files = list(large.open().files("").values())
    proxy = CuttingProxy(large.url, n_bytes)
    try:
        downloads = Downloads(Bucket(BUCKET, REGION, endpoint_url=proxy.url), files, tmp_path)
        if arrives:
            downloads.run(parallel=1)
            assert (tmp_path / KEY).read_bytes() == CONTENT
        else:
            with pytest.raises(OutputError, match=r"large.bin stopped at 0 of 12582912 bytes .*run again to go on"):
                downloads.run(parallel=1)
    finally:
        proxy.close()


def test_the_record_names_what_was_downloaded(bucket, tmp_path):
    import json

    bucket.put("a.txt", b"small")
    fetch(bucket, tmp_path)
    record = json.loads((tmp_path / RECORD).read_text())
    assert record["files"] == {"a.txt": {"etag": hashlib.md5(b"small").hexdigest(), "size": 5}}
