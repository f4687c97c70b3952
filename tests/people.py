"""Simulated people of a few kinds of voxel, alike in all people: SIMULATION, small enough for any test."""

from dataclasses import dataclass

import numpy as np

P = 6


@dataclass(frozen=True)
class Person:
    """Features (n, p), responses (n, v), signal weights (v, p), and region labels, "" for one voxel in ten."""

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    rois: np.ndarray

    @property
    def pair(self):
        return self.X, self.y


def make_pool(rng):
    return rng.standard_normal((400, P)) * np.linspace(2.0, 0.5, P)


def make_person(pool, rng, n_images=60, n_voxels=150, r=0.4, scale=1.0):
    """Voxels of kind "a" and "b" around two directions, and some of neither."""
    centres = np.random.default_rng(7).standard_normal((2, P))
    kind = rng.choice(3, n_voxels, p=[0.5, 0.4, 0.1])
    u = np.vstack([centres, np.zeros(P)])[kind] + 0.5 * rng.standard_normal((n_voxels, P))
    u /= np.sqrt(np.einsum("vp,pq,vq->v", u, np.cov(pool, rowvar=False), u))[:, None]
    X = pool[rng.permutation(len(pool))[:n_images]]
    y = np.sqrt(r) * X @ u.T + np.sqrt(1 - r) * rng.standard_normal((n_images, n_voxels))
    return Person(X, scale * y + 3.0, scale * np.sqrt(r) * u, np.array(["a", "b", ""])[kind])
