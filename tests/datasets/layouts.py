"""Writers of tiny but format-true copies of public data sets, with the responses that went in."""

import json

import h5py
import nibabel as nib
import numpy as np
from nsd_writer import write_nsd_labels, write_nsd_ncsnr, write_nsd_session

from braincorl.datasets.nsd.layout import NsdFolder

AFFINE = np.array([[-1.8, 0, 0, 70], [0, 1.8, 0, -90], [0, 0, 1.8, -40], [0, 0, 0, 1]])
SHAPE = (6, 7, 5)
# Names differ from those that the program knows by heart, so that a test sees where names come from.
NAMES = {
    "prf-visualrois": {1: "V1v-own", 2: "V1d-own"},
    "floc-faces": {1: "OFA", 2: "FFA-1"},
    "floc-bodies": {1: "EBA"},
    "floc-places": {1: "OPA", 2: "PPA"},
    "floc-words": {1: "OWFA"},
    "nsdgeneral": {1: "nsdgeneral"},
}


class TinyNsd:
    """Subject 1 of a tiny but format-true NSD: three sessions of int16 betas on a grid of 210 voxels."""

    subject = 1

    def __init__(self, root, design, sessions=(1, 2, 3), container=".nii.gz"):
        rng = np.random.default_rng(5)
        self.root, self.design, self.sessions = root, design, list(sessions)
        self.folder = NsdFolder(root, self.subject)
        self.invalid = np.zeros(SHAPE, dtype=bool)
        self.invalid[2, 3, 1] = True  # 0 in every trial, though the regions name it
        # The responses as the file holds them, whole numbers: 300 times % signal change.
        self.stored = {n: rng.integers(-2000, 2000, (750, *SHAPE)).astype(np.int16) for n in self.sessions}
        everything = np.ones(SHAPE, dtype=bool)
        for number, values in self.stored.items():
            values[:, self.invalid] = 0
            flat = values.reshape(750, -1)
            write_nsd_session(self.folder, number, flat / 300.0, everything, AFFINE, container)
        self.labels = self._draw_labels(rng)
        for atlas, labels in self.labels.items():
            write_nsd_labels(self.folder, atlas, labels, AFFINE, NAMES[atlas])
        self.ncsnr = rng.random(SHAPE).astype("f4")
        write_nsd_ncsnr(self.folder, self.ncsnr.ravel(), everything, AFFINE)

    def _draw_labels(self, rng):
        cortex = rng.random(SHAPE) < 0.8
        cortex[2, 3, 1] = True
        labels = {}
        for atlas, names in NAMES.items():
            volume = np.where(cortex, 0, -1)
            for label in names:
                volume[cortex & (rng.random(SHAPE) < 0.25)] = label
            labels[atlas] = volume
        labels["floc-faces"][2, 3, 1] = 1
        labels["prf-visualrois"][2, 3, 1] = 0
        return labels

    def shown(self, sessions=None):
        """Stimulus of each trial, by the words of the manual: both tables count from 1."""
        one_based_order, one_based_images = self.design.order + 1, self.design.images + 1
        trials = [t for n in sessions or self.sessions for t in range((n - 1) * 750, n * 750)]
        return [str(one_based_images[self.subject - 1, one_based_order[t] - 1] - 1) for t in trials]

    def higher_visual(self):
        functional = np.zeros(SHAPE, dtype=bool)
        for atlas in ("floc-faces", "floc-bodies", "floc-places", "floc-words"):
            functional |= self.labels[atlas] > 0
        return functional & ~(self.labels["prf-visualrois"] > 0)

    def expected(self, mask, sessions=None, zscore=True):
        """Image -> mean response (n_voxels,) over repeats, by a plain loop."""
        trials = []
        for number in sessions or self.sessions:
            y = self.stored[number][:, mask] / 300.0
            trials.append((y - y.mean(axis=0)) / y.std(axis=0) if zscore else y)
        rows = {}
        for image, response in zip(self.shown(sessions), np.concatenate(trials), strict=True):
            rows.setdefault(image, []).append(response)
        return {image: np.mean(values, axis=0) for image, values in rows.items()}


class TinyBold5000:
    """Subject CSI2 of a tiny BOLD5000: fifteen sessions of a few trials, with a wrong affine in the betas files."""

    subject = 2

    def __init__(self, root):
        rng = np.random.default_rng(6)
        self.root = root
        self.mask = rng.random(SHAPE) < 0.7
        self.lengths = [4, 3] + [3] * 13
        names = [f"COCO_train2014_{i:012d}.jpg" for i in range(40)]
        shown = rng.permutation(names + names[:6])[: sum(self.lengths)]
        self.shown = shown.tolist()
        self.trials = (rng.standard_normal((len(self.shown), self.mask.sum())) * 2 + 1).astype("f4")
        (root / "betas").mkdir(parents=True)
        nib.save(nib.Nifti1Image(self.mask.astype(np.uint8), AFFINE), root / "CSI2_brainmask.nii.gz")
        (root / "CSI2_imgnames.txt").write_text("".join(f"{name}\n" for name in self.shown))
        start = 0
        for session, n in enumerate(self.lengths, start=1):
            volume = np.zeros((*SHAPE, n), dtype="f4")
            volume[self.mask] = self.trials[start : start + n].T
            nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2, 2, 1])), self.session(session))
            start += n
        right = np.zeros(SHAPE, dtype=bool)
        right[:3] = True  # x falls with the first index
        # The names that the subject's masks really have.
        self.regions = {"LHPPA": ~right, "RHPPA": right, "LHLO": ~right, "RHLO": right, "RHRRSC": right}
        for name, side in list(self.regions.items()):
            self.regions[name] = side & (rng.random(SHAPE) < 0.4)
            folder = root / "masks" / "sub-CSI2"
            folder.mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(self.regions[name].astype("f4"), AFFINE)
            nib.save(image, folder / f"sub-CSI2_mask-{name}.nii.gz")

    def session(self, number):
        name = f"CSI2_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-{number:02d}.nii.gz"
        return self.root / "betas" / name


class TinyAlgonauts:
    """Subject 3 of a tiny Algonauts 2023: real containers, few vertices."""

    subject = 3
    labels = {0: "Unknown", 1: "V1v", 2: "V1d"}  # noqa: RUF012

    def __init__(self, root):
        rng = np.random.default_rng(7)
        self.root = root
        self.folder = root / "subj03"
        fmri, pictures = self.folder / "training_split/training_fmri", self.folder / "training_split/training_images"
        masks = self.folder / "roi_masks"
        for folder in (fmri, pictures, masks):
            folder.mkdir(parents=True)
        self.images = [f"train-{i + 1:04d}_nsd-{n:05d}.png" for i, n in enumerate(sorted(rng.permutation(73000)[:12]))]
        for name in rng.permutation(self.images):
            (pictures / name).write_bytes(b"")
        self.responses, self.vertices, self.roi = {}, {}, {}
        for side, n in (("lh", 9), ("rh", 11)):
            self.responses[side] = rng.standard_normal((12, n)).astype("f4")
            np.save(fmri / f"{side}_training_fmri.npy", self.responses[side])
            everything = np.zeros(163_842, dtype=np.int64)
            everything[rng.permutation(163_842)[:n]] = 1
            self.vertices[side] = everything.astype(bool)
            np.save(masks / f"{side}.all-vertices_fsaverage_space.npy", everything)
            self.roi[side] = rng.integers(0, 3, n)
            np.save(masks / f"{side}.prf-visualrois_challenge_space.npy", self.roi[side])
        np.save(masks / "mapping_prf-visualrois.npy", self.labels, allow_pickle=True)


class TinyGlmsingle:
    """GLMsingle output of a new person, in both containers."""

    def __init__(self, folder):
        rng = np.random.default_rng(8)
        self.mask = rng.random(SHAPE) < 0.5
        self.volumes = rng.standard_normal((*SHAPE, 10)).astype("f4")
        content = {
            "HRFindex": np.zeros(SHAPE, dtype=np.int64),
            "FRACvalue": np.ones(SHAPE),
            "R2": np.zeros(SHAPE),
            "betasmd": self.volumes,
        }
        self.npy = folder / "TYPED_FITHRF_GLMDENOISE_RR.npy"
        np.save(self.npy, content, allow_pickle=True)
        self.hdf5 = self.npy.with_suffix(".hdf5")
        with h5py.File(self.hdf5, "w") as file:
            for name, values in content.items():
                file[name] = values
        self.shown = [f"img{i}" for i in (0, 1, 2, 0, 3, 1, 4, 5, 6, 0)]
        self.trials = folder / "trials.tsv"
        self.trials.write_text("image\n" + "".join(f"{name}\n" for name in self.shown))
        self.mask_path = folder / "mask.nii.gz"
        nib.save(nib.Nifti1Image(self.mask.astype(np.uint8), AFFINE), self.mask_path)


class TinyBids:
    """BIDS derivatives of one person: ten sessions, a mask, regions, an ncsnr map."""

    def __init__(self, root):
        rng = np.random.default_rng(9)
        self.root = root
        self.mask = rng.random(SHAPE) < 0.6
        root.mkdir()
        description = {"Name": "tiny", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": []}
        (root / "dataset_description.json").write_text(json.dumps(description))
        self.shown, self.betas, self.tables = [], [], []
        self.trials = rng.standard_normal((40, self.mask.sum())).astype("f4") + 3
        for session in range(1, 11):
            folder = root / "sub-ab" / f"ses-{session}" / "func"
            folder.mkdir(parents=True)
            stem = f"sub-ab_ses-{session}_task-images"
            volume = np.zeros((*SHAPE, 4), dtype="f4")
            volume[self.mask] = self.trials[(session - 1) * 4 : session * 4].T
            self.betas.append(folder / f"{stem}_space-T1w_stat-effect_desc-single_statmap.nii.gz")
            nib.save(nib.Nifti1Image(volume, AFFINE), self.betas[-1])
            names = [f"img{i}" for i in rng.permutation(9)[:4]]
            self.tables.append(folder / f"{stem}_trials.tsv")
            self.tables[-1].write_text("trial\timage\n" + "".join(f"{i}\t{n}\n" for i, n in enumerate(names)))
            self.shown += names
        anat = root / "sub-ab" / "anat"
        anat.mkdir()
        self.mask_path = anat / "sub-ab_space-T1w_desc-brain_mask.nii.gz"
        nib.save(nib.Nifti1Image(self.mask.astype(np.uint8), AFFINE), self.mask_path)
        self.region = self.mask & (rng.random(SHAPE) < 0.5)
        region = nib.Nifti1Image(self.region.astype(np.uint8), AFFINE)
        nib.save(region, anat / "sub-ab_space-T1w_label-V1v_mask.nii.gz")
        self.ncsnr = rng.random(SHAPE).astype("f4")
        ncsnr = nib.Nifti1Image(self.ncsnr, AFFINE)
        nib.save(ncsnr, root / "sub-ab" / "ses-1" / "func" / "sub-ab_space-T1w_stat-ncsnr_statmap.nii.gz")


def mean_by_image(shown, trials):
    """Image -> mean of its trials, by a plain loop."""
    rows = {}
    for image, response in zip(shown, trials, strict=True):
        rows.setdefault(image, []).append(response)
    return {image: np.mean(values, axis=0) for image, values in rows.items()}


def within_sessions(trials, lengths):
    """Trials (n, n_voxels) z-scored within consecutive sessions."""
    parts = np.split(trials.astype("f8"), np.cumsum(lengths)[:-1])
    return np.concatenate([(part - part.mean(axis=0)) / part.std(axis=0) for part in parts])
