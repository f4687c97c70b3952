# %% [markdown]
# # Fit a person from few images
#
# From files to a voxelwise encoder, its scores, a map, and predictions that know how sure they are. The person is a
# **simulation**, written to disk in the formats that your own data would have.

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from braincorl import BayesianRidgeEncoder, RidgeEncoder, load_subject, simulate_people
from braincorl.analysis import plot_surface, save_map, summarize_rois
from braincorl.metrics import explained_variance, normalize_by_ceiling

folder = Path(tempfile.mkdtemp())
world = simulate_people(n_people=1, n_own=100, n_shared=50, layout="sheet", random_state=1)
paths = world.people[0].write(folder)
sorted(path.name for path in folder.iterdir())

# %% [markdown]
# ## Read
#
# Repeats of an image are averaged; voxels that are constant or not finite are left out and counted.

# %%
subject = load_subject(paths["betas"], paths["trials"], paths["mask"], rois=paths["rois"])
subject

# %% [markdown]
# ## Fit
#
# Thirty images are the context. The images that everybody saw, three times each, are for scoring and enter nothing
# else.

# %%
own = [name for name in subject.image_ids if name not in set(world.shared)]
context, test = subject.select_images(own[:30]), subject.select_images(world.shared)
X, T = world.features_of(context.image_ids), world.features_of(test.image_ids)
encoders = {"ridge": RidgeEncoder(), "Bayesian ridge": BayesianRidgeEncoder()}
scores = {
    name: explained_variance(test.responses, encoder.fit(X, context.responses).predict(T))
    for name, encoder in encoders.items()
}
pd.DataFrame(scores).describe().loc[["mean", "50%"]].round(3)

# %% [markdown]
# ## Noise ceilings
#
# Part of a response is noise that no encoder can predict. Repeats tell how much: the ceiling is the largest explained
# variance that a perfect encoder would reach. Voxels with a low ceiling are left out of the normalised score.

# %%
ceiling = test.noise_ceiling()
normalized, reliable = normalize_by_ceiling(scores["Bayesian ridge"], ceiling)
print(f"{reliable.sum()} of {reliable.size} voxels are reliable; EV over ceiling {np.nanmean(normalized):.2f}")

# %%
summarize_rois({"ev": scores["Bayesian ridge"], "noiseceiling": ceiling}, test.rois).round(3)

# %% [markdown]
# ## A map
#
# Where on the cortex does it work? To a file it goes as float32, with the mask's affine; voxels without data are NaN.

# %%
largest = {name: subject.rois[name] for name in ("EarlyVis", "LOC", "FFA", "PPA")}
plot_surface(scores["Bayesian ridge"], subject.space, label="EV (simulation)", signed=False, rois=largest)

# %%
sidecar = {"Description": "Explained variance, simulated", "Units": "1"}
save_map(scores["Bayesian ridge"], subject.space, folder / "ev.nii.gz", sidecar)

# %% [markdown]
# ## How sure is it?
#
# The standard deviation covers noise, what thirty images leave open, and the unknown noise level. About 95 % of the
# measured responses should lie within 1.96 of them. The images that are scored were repeated three times, so their
# noise is smaller than that of the single-trial context, and more than 95 % lie inside.

# %%
mean, std = encoders["Bayesian ridge"].predict(T, return_std=True)
inside = np.abs(test.responses - mean) < 1.96 * std
print(f"{inside.mean():.1%} of the responses are inside their 95 % interval")
