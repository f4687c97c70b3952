import logging
import os
from pathlib import Path

import numpy as np
import pytest

from braincorl.datasets import simulate_people

ROOT = Path(__file__).resolve().parent.parent

# Whole runs of the command line, drawing, notebooks, training, kills, full disks, pages in a browser, workers, and a
# local S3 server: most of the time, and few of the properties that nothing smaller holds. Left out unless they are
# named, or ALL_TESTS is set. Each entry is the beginning of a test's place under tests/: a folder, a file, or a test.
SLOW = (
    "analysis/maps/",
    "analysis/report/test_report.py",
    "analysis/test_notebooks.py",
    "analysis/words/test_real_words.py",
    "cli/",
    "cohort/",
    "datasets/download/",
    "datasets/nsd/test_nsd.py::test_a_subject_of_thirty",
    "datasets/nsd/test_nsd_fetch.py",
    "datasets/test_damage.py",
    "datasets/test_hostile.py",
    "datasets/surfaces/test_grayordinates.py",
    "datasets/test_load.py::test_memory_is_bounded",
    "datasets/test_mosaic.py::test_everything_goes_out",
    "datasets/test_simulation.py::test_noise_is_shared",
    "datasets/trials/test_prepare_at_once.py",
    "datasets/trials/test_prepared.py",
    "encoders/test_attending.py::test_a_forked_child",
    "features/store/test_feature_files.py::test_a_large_file",
    "features/test_embedder.py",
    "features/backbones/test_backbones.py",
    "models/test_engine.py",
    "models/test_own_voxels.py::test_more_images_than_features_tell",
    "models/test_reference.py::test_golden_outputs_of_the_published_network",
    "storage/test_hdf5.py::test_a_full_disk",
    "test_cells.py",
    "test_checkpoint.py::test_a_converted_file",
    "test_checkpoint.py::test_published_sizes",
    "test_commands.py",
    "test_foreign_state.py",
    "test_pages.py",
    "test_readme.py",
    "test_start_up.py",
    "training/",
)


def pytest_collection_modifyitems(config, items):
    """Leave slow tests out of `pytest` without arguments."""
    for item in items:
        if f"{item.path.relative_to(ROOT / 'tests').as_posix()}::{item.name}".startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    if os.environ.get("ALL_TESTS") or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(autouse=True)
def log_is_shown():
    """The command line keeps the log to itself where it ran in this process; tests look for it at the root."""
    logger = logging.getLogger("braincorl")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def world():
    """Two simulated people, small enough to be made in a second."""
    return simulate_people(2, n_own=60, n_shared=30, n_features=24, voxel_size_mm=8, random_state=3)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def real_data():
    """Folder of the real measurements, which stay outside the repository."""
    folder = Path(os.environ.get("BRAINCORL_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data are not at {folder} (set BRAINCORL_SHARED to their folder)")
    return folder


@pytest.fixture(scope="session")
def tiny_network():
    """A network of the published architecture with 20 channels, in float64."""
    from published import TINY, make_network

    return make_network(TINY)


@pytest.fixture
def tiny_context():
    """Features (9, 6) and responses (5 voxels, 9)."""
    from published import TINY, make_context

    return make_context(TINY.n_features, n_context=9, n_voxels=5)


@pytest.fixture(scope="session")
def published():
    """Golden outputs of the published network."""
    from published import Published

    return Published()


@pytest.fixture(scope="session")
def s3_server():
    """A local S3 server."""
    pytest.importorskip("moto", reason="moto, the local S3 server, is not installed (uv sync installs it)")
    from s3 import local_server

    with local_server() as url:
        yield url


@pytest.fixture
def bucket(s3_server):
    """NSD's bucket, empty, on the local server."""
    from s3 import LocalBucket

    return LocalBucket(s3_server).emptied()
