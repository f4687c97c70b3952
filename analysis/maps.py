# %% [markdown]
# # Maps
#
# Where does an encoder work, and where could it not? Voxel values as slices, through a glass brain and on the cortical
# surface; colours that outliers cannot spoil; regions outlined; voxels of low noise ceiling left out; files that other
# programs read. The person is a **simulation** in MNI space.

# %%
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from braincorl import BayesianRidgeEncoder, simulate_people
from braincorl.analysis import plot_glass_brain, plot_mosaic, plot_surface, save_map
from braincorl.metrics import explained_variance

world = simulate_people(n_people=1, n_own=50, n_shared=50, n_features=64, layout="sheet", random_state=1)
subject = world.people[0].subject()
test = subject.select_images(world.shared)
context = subject.select_images([name for name in subject.image_ids if name not in set(world.shared)])
encoder = BayesianRidgeEncoder().fit(world.features_of(context.image_ids), context.responses)
ev = explained_variance(test.responses, encoder.predict(world.features_of(test.image_ids)))
ceiling = test.noise_ceiling()
space = subject.space
subject

# %% [markdown]
# ## Slices
#
# Every voxel as it is, left on the left, in any space: nothing is resampled. The colours begin at 0 and end where 1 %
# of the voxels are stronger.

# %%
plot_mosaic(ev, space, title="Explained variance, 50 context images (simulation)", label="EV", signed=False)

# %% [markdown]
# ## Thresholded by the noise ceiling
#
# Where the ceiling is low there is hardly a signal to explain; a low score there says nothing on the encoder. Those
# voxels stay grey. The largest regions are outlined.

# %%
regions = {name: subject.rois[name] for name in ("EarlyVis", "LOC", "FFA", "EBA", "PPA")}
plot_mosaic(
    ev,
    space,
    title="EV where the noise ceiling is at least .3 (simulation)",
    label="EV",
    signed=False,
    ceiling=ceiling,
    min_ceiling=0.3,
    rois=regions,
)

# %% [markdown]
# ## Signed maps
#
# A weight has a sign, so its colours are symmetric about 0. Where both signs occur, that is the default.

# %%
plot_glass_brain(encoder.coef_[:, 0], space, title="Weight of the first feature (simulation)")

# %% [markdown]
# ## The cortical surface
#
# On nilearn's bundled fsaverage5 meshes, without a download. Volumes in MNI space are sampled between the white and the
# pial surface: good for a look, not for measuring. People on fsaverage itself (`load_surface`) are drawn exactly.

# %%
plot_surface(
    ev, space, title="Explained variance (simulation)", label="EV", signed=False, ceiling=ceiling, rois=regions
)

# %% [markdown]
# ## Files
#
# Float32 with the mask's affine. Voxels outside the mask are NaN, or 0 with `outside="zero"`.

# %%
folder = Path(tempfile.mkdtemp())
path = save_map(ev, space, folder / "sub-01_stat-ev_statmap.nii.gz", {"Description": "EV, simulated", "Units": "1"})
image = nib.load(path)
assert np.array_equal(image.get_fdata(dtype=np.float32)[space.mask], ev.astype(np.float32))
image.shape, image.get_data_dtype()
