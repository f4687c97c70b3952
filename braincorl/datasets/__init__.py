"""People: responses to images, with repeats, sessions, regions and the space that the voxels live in."""

from braincorl.datasets.algonauts import load_algonauts2023
from braincorl.datasets.betas.grids import Grid
from braincorl.datasets.bids import load_bids
from braincorl.datasets.bold5000 import load_bold5000
from braincorl.datasets.download.public_fetch import fetch_laion_fmri, fetch_mosaic
from braincorl.datasets.laion_fmri import load_laion_fmri, split_laion_fmri
from braincorl.datasets.load import load_subject
from braincorl.datasets.mosaic import load_mosaic, split_mosaic
from braincorl.datasets.nsd.fetching import fetch_nsd
from braincorl.datasets.nsd.person import load_nsd, split_nsd
from braincorl.datasets.simulation import simulate_people
from braincorl.datasets.space import Subcortex, Surface, VoxelSpace
from braincorl.datasets.splits import Split, split_repeated
from braincorl.datasets.subject import SubjectData
from braincorl.datasets.surfaces.surface_image import load_surface_image, to_surface_image
from braincorl.datasets.surfaces.surface_person import load_surface
from braincorl.datasets.trials.prepared import load_prepared
from braincorl.datasets.trials.preparing import prepare
from braincorl.datasets.trials.recording import Recording

__all__ = [
    "Grid",
    "Recording",
    "Split",
    "Subcortex",
    "SubjectData",
    "Surface",
    "VoxelSpace",
    "fetch_laion_fmri",
    "fetch_mosaic",
    "fetch_nsd",
    "load_algonauts2023",
    "load_bids",
    "load_bold5000",
    "load_laion_fmri",
    "load_mosaic",
    "load_nsd",
    "load_prepared",
    "load_subject",
    "load_surface",
    "load_surface_image",
    "prepare",
    "simulate_people",
    "split_laion_fmri",
    "split_mosaic",
    "split_nsd",
    "split_repeated",
    "to_surface_image",
]
