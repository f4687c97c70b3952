"""A tiny person of MOSAIC in the exact layout: names, attributes, 91,282 grayordinates a trial."""

import h5py
import numpy as np

N = 91_282
FOLDER = "fMRIPrepv23_2_0/task_fMRI/betas/GLMsinglev1_2"


class TinyMosaic:
    """Five images to learn from, shown once or twice, and two to test on, shown three times."""

    def __init__(self, root, dataset="NaturalScenesDataset", short="NSD", number=1, values=None, seed=0, ceiling=True):
        rng = np.random.default_rng(seed)
        self.root, self.stem = root, f"sub-{number:02d}_{short}"
        self.path = root / FOLDER / dataset / f"{self.stem}.hdf5"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.trials = {}  # image -> list of responses (91282,)
        self.phase = {}
        self.percent = rng.uniform(0, 50, N)
        self.percent[:4] = np.nan
        with h5py.File(self.path, "w") as file:
            file.attrs["subjectID"], file.attrs["dataset_name"] = f"sub-{number:02d}", dataset
            if ceiling:
                group = file.create_group("noiseceilings", track_order=True)
                for n, phase, values_ in (("avg", "test", self.percent + 20), ("1", "test", self.percent)):
                    name = f"{self.stem}_phase-{phase}_n-{n}_noiseceiling"
                    made = group.create_dataset(name, data=values_, track_order=True)
                    made.attrs["n"], made.attrs["phase"] = n, phase
            group = file.create_group("betas", track_order=True)
            shown = [(f"{n:012d}", "train", 1 + n % 2) for n in range(5)] + [
                ("test_1", "test", 3),
                ("test_2", "test", 3),
            ]
            for image, phase, n_repeats in shown:
                for repeat in range(n_repeats):
                    response = rng.standard_normal(N)
                    response[7] = np.nan
                    name = f"{self.stem}_stimulus-{image}_phase-{phase}_rep-{repeat}"
                    made = group.create_dataset(name, data=response, track_order=True)
                    made.attrs["nan_indices"] = np.array([7])
                    made.attrs["phase"], made.attrs["repetition"] = phase, repeat
                    made.attrs["presented_stimulus_filename"] = f"{image}.jpg"
                    self.trials.setdefault(f"{image}.jpg", []).append(response)
                    self.phase[f"{image}.jpg"] = phase
        table = root / "stimulus_info"
        table.mkdir(exist_ok=True)
        lines = [f"{image}\t0\tCOCO\t{phase}\t{len(self.trials[image])}" for image, phase in self.phase.items()]
        header = "filename\talias\tsource\ttest_train\tsub-01_reps\n"
        (table / f"{short.lower()}_stiminfo.tsv").write_text(header + "\n".join(lines) + "\n")
