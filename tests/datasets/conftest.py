import pytest
from layouts import TinyNsd
from nsd_writer import write_nsd_design


@pytest.fixture(scope="session")
def nsd_experiment(tmp_path_factory):
    """Design and table of stimuli, which every tiny NSD links to."""
    root = tmp_path_factory.mktemp("experiment")
    return root, write_nsd_design(root)


@pytest.fixture
def make_nsd(tmp_path, nsd_experiment):
    experiment, design = nsd_experiment

    def make(**options):
        root = tmp_path / "nsd"
        target = root / "nsddata" / "experiments"
        target.parent.mkdir(parents=True)
        target.symlink_to(experiment / "nsddata" / "experiments")
        return TinyNsd(root, design, **options)

    return make


@pytest.fixture
def nsd(make_nsd):
    return make_nsd()
