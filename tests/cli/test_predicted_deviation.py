import nibabel as nib
import numpy as np
import pandas as pd


def test_a_voxel_that_is_constant_in_the_context_has_no_deviation(inputs, braincorl, tmp_path):
    image, table = nib.load(inputs.betas), pd.read_csv(inputs.trials, sep="\t")
    values, voxel = (
        np.asarray(image.dataobj).copy(),
        tuple(np.argwhere(np.asarray(nib.load(inputs.mask).dataobj) > 0)[7]),
    )
    context = table["image"].unique()[:30]
    values[(*voxel, np.flatnonzero(table["image"].isin(context)))] = 40.0
    nib.save(nib.Nifti1Image(values, image.affine, image.header), tmp_path / "betas.nii.gz")
    (tmp_path / "context.txt").write_text("\n".join(context))
    arguments = [*inputs.arguments(betas=tmp_path / "betas.nii.gz"), "--context", tmp_path / "context.txt"]
    fitted = braincorl("fit", *arguments, "--encoder", "bayesian-ridge", "--output-dir", tmp_path / "f")
    assert fitted.status == 0, fitted.err
    result = braincorl(
        "predict", tmp_path / "f", "--features", inputs.features, "--std", "--output-dir", tmp_path / "p"
    )
    assert result.status == 0, result.err
    assert "voxels were constant in the context: their deviation is unknown, NaN in the maps" in result.err
    (path,) = (tmp_path / "p").glob("*desc-predictedstd*.nii.gz")
    std = np.asarray(nib.load(path).dataobj)
    assert np.isnan(std[voxel]).all()
    assert not (std == 0).any()
    (path,) = (tmp_path / "f").glob("*stat-noisevariance_statmap.nii.gz")
    assert np.isnan(np.asarray(nib.load(path).dataobj)[voxel])
