from braincorl.analysis.report.fit_report import find_warnings
from braincorl.fits import Fit


def test_choices_at_the_end_of_their_grid_are_told_by_fit_and_report(inputs, braincorl, tmp_path):
    arguments = [*inputs.arguments(), "--n-context", 8, "--encoder", "ridge"]
    result = braincorl("fit", *arguments, "--output-dir", tmp_path / "f")
    assert result.status == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "of the voxels" in line]
    assert "chose the smallest" in line
    assert sum("chose the smallest" in note for note in find_warnings(Fit.load(tmp_path / "f"), {})) == 1
