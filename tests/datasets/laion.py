"""A tiny person of LAION-fMRI in the exact layout: folders, names, columns, units, splits."""

import json

import nibabel as nib
import numpy as np

SHAPE = (6, 5, 4)
AFFINE = np.diag([1.778, 1.778, 1.778, 1.0])
OOD_KINDS = ("gabor", "shape")


class TinyLaion:
    """Sessions of a dozen trials; everything that was written is an attribute."""

    def __init__(self, root, subject="sub-01", sessions=(1, 2, 3), n_trials=12, seed=0):
        rng = np.random.default_rng(seed)
        self.root, self.subject = root, subject
        self.folder = root / "derivatives" / "glmsingle-tedana" / subject
        self.shared = [f"shared_4rep_LAION_cluster_{n}_i0.jpg" for n in range(5)]
        self.ood = [f"shared_4rep_OOD_{kind}_{n}.png" for kind in OOD_KINDS for n in range(2)]
        self.own = [f"{subject}_4rep_LAION_{n}.jpg" for n in range(6)]
        labels = [*self.shared, *self.ood, *self.own]
        self.mask = rng.random(SHAPE) < 0.7
        self.regions = {name: self.mask & (rng.random(SHAPE) < 0.4) for name in ("V1", "FFA")}
        self.trials, self.shown = {}, {}
        for number in sessions:
            values = (rng.standard_normal((n_trials, *SHAPE)) * 2 + number).astype("f4")
            values[:, 0, 0, 0] = np.nan  # some voxels are
            self.trials[number] = values
            self.shown[number] = [labels[row] for row in rng.integers(0, len(labels), n_trials)]
            self._write_session(number)
        self.percent = rng.uniform(0, 60, SHAPE).astype("f4") * self.mask
        for desc, factor in (("Noiseceiling4rep", 1.0), ("Noiseceiling12rep", 1.5), ("NoiseceilingAllrep", 1.2)):
            self.save(f"{subject}_task-images_space-T1w_desc-{desc}_statmap.nii.gz", self.percent * factor)
        self.save(f"{subject}_task-images_space-T1w_desc-meanR2gt15mask_mask.nii.gz", self.mask.astype(np.uint8))
        rois = root / "derivatives" / "atlases" / subject / "rois"
        rois.mkdir(parents=True)
        for name, members in self.regions.items():
            nib.save(nib.Nifti1Image(members.astype(np.uint8), AFFINE), rois / f"{name}.nii.gz")
        (root / "dataset_description.json").write_text(json.dumps({"Name": "LAION-fMRI", "BIDSVersion": "1.9.0"}))
        (root / "participants.tsv").write_text(f"participant_id\n{subject}\n")

    def save(self, name, values):
        nib.save(nib.Nifti1Image(values, AFFINE), self.folder / name)

    def paths(self, number):
        """Betas and table of a session."""
        stem = f"{self.subject}_ses-{number:02d}_task-images"
        func = self.folder / f"ses-{number:02d}" / "func"
        return (
            func / f"{stem}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz",
            func / f"{stem}_desc-SingletrialBetas_trials.tsv",
        )

    def region(self, name):
        return self.root / "derivatives" / "atlases" / self.subject / "rois" / f"{name}.nii.gz"

    def _write_session(self, number):
        betas, _ = self.paths(number)
        betas.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.moveaxis(self.trials[number], 0, 3), AFFINE), betas)
        self.write_table(number)

    def write_table(self, number, first=0, rows=None):
        """Write the table, volumes counted from 0 or 1, in any order of rows."""
        order = range(len(self.shown[number])) if rows is None else rows
        lines = [f"ses-{number:02d}\t{1 + row // 6}\t{row + first}\t{self.shown[number][row]}" for row in order]
        self.paths(number)[1].write_text("session\trun\tbeta_index\tlabel\n" + "\n".join(lines) + "\n")

    def write_splits(self, folder):
        """The published files, by pool and name."""
        for pool, train in (("shared", self.shared), (self.subject, [*self.shared, *self.own])):
            (folder / pool).mkdir(parents=True)
            sides = {"tau": (train[2:], train[:2]), "ood": (train, self.ood), "random_0": (train[1:], train[:1])}
            for name, (learn, test) in sides.items():
                content = {
                    "name": name,
                    "pool": f"LAION {pool}",
                    "splitter": name,
                    "params": {},
                    "n_train": len(learn),
                    "n_test": len(test),
                    "variants": [{"variant_id": 0, "train_ids": learn, "test_ids": test}],
                }
                (folder / pool / f"{name}.json").write_text(json.dumps(content))
        return folder

    def by_image(self, sessions, inside):
        """Image -> mean over repeats of responses z-scored within sessions, by a plain loop."""
        rows = {}
        for number in sessions:
            values = self.trials[number][:, inside].astype("f8")
            scaled = (values - values.mean(axis=0)) / values.std(axis=0)
            for label, response in zip(self.shown[number], scaled, strict=True):
                rows.setdefault(label, []).append(response)
        return {label: np.mean(trials, axis=0) for label, trials in rows.items()}
