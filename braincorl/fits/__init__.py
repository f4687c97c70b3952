"""One person's fit: made by `fit_person`, scored, asked for predictions, and kept on disk with its maps.

    subject = load_subject(betas, trials, mask)
    fit = fit_person(subject, load_features("features.npz"), context=100)
    fit.save("sub-01")
    Fit.load("sub-01").score(test, features).save("sub-01/scores")

The verbs fit, score and predict of the command line do the same.
"""

from braincorl.fits.fit import Fit
from braincorl.fits.fitting import fit_person
from braincorl.fits.folder import MAPS
from braincorl.fits.scored import Scored, describe, describe_partition, describe_test

__all__ = ["MAPS", "Fit", "Scored", "describe", "describe_partition", "describe_test", "fit_person"]
