import pytest

from braincorl.datasets import simulate_people
from braincorl.features import FeatureTable, save_features
from braincorl.storage.files import write_json


class Tree:
    """A folder of BIDS derivatives with three simulated people (SIMULATION), and features of all their images."""

    def __init__(self, folder, n_people=3, **options):
        self.folder, self.root, self.features = folder, folder / "betas", folder / "features.npz"
        self.world = simulate_people(n_people, **options)
        self.root.mkdir()
        description = {"Name": "Simulated people", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}
        generated = {"GeneratedBy": [{"Name": "simulation"}]}
        write_json(self.root / "dataset_description.json", description | generated)
        # BIDS has no names for statistical maps and trials tables yet.
        (self.root / ".bidsignore").write_text("*_statmap.nii.gz\n*_trials.tsv\n")
        (self.root / "README.md").write_text("Simulated people: no brain was measured.\n")
        self.files = {}
        for person in self.world.people:
            (self.root / person.name).mkdir()
            self.files[person.name] = person.write(self.root / person.name)
        save_features(
            self.features, FeatureTable(self.world.features, self.world.image_ids, {"backbone": "simulation"})
        )

    def arguments(self, name):
        """Options of `braincorl fit` for one person."""
        files = self.files[name]
        return ["--features", self.features, *(part for key, path in files.items() for part in (f"--{key}", path))]


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return Tree(tmp_path_factory.mktemp("tree"), n_own=30, n_shared=12, n_features=12, voxel_size_mm=12, random_state=5)
