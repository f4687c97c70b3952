"""`ImageEmbedder`: images and words to features, with their provenance."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braincorl.errors import InputError
from braincorl.features.backbones.backbone import BackboneOptions, to_unit_length
from braincorl.features.backbones.gabor import GaborConfig
from braincorl.features.backbones.own_backbone import module_backbone
from braincorl.features.backbones.prompts import embed_prompts, resolve_templates
from braincorl.features.backbones.registry import make_named_backbone
from braincorl.features.batches import (
    Prepared,
    choose_batch_size,
    embed_batch,
    in_batches,
    n_readers,
    read_ahead,
)
from braincorl.features.images.image_sources import DEFAULT_DATASET, ImageSource, image_source, names_hash
from braincorl.features.images.pictures import check_background
from braincorl.features.store.feature_files import check_ending, load_features, write_matrix
from braincorl.features.store.journal import Journal
from braincorl.features.store.table import FeatureTable
from braincorl.names import check_names
from braincorl.storage.files import Progress
from braincorl.validation import FloatArray

if TYPE_CHECKING:
    import torch
    from PIL import Image as PILImage

logger = logging.getLogger(__name__)

# Provenance that says how features were made but does not set their space apart for texts.
_OF_IMAGES_ONLY = ("preprocessing",)


@dataclass(frozen=True)
class _Loop:
    """How the images are gone through."""

    batch_size: int
    workers: int
    background: str
    skip_unreadable: bool
    progress: Progress


class ImageEmbedder:
    """A backbone, ready to turn images (and, for CLIP-like ones, texts) into features.

    Parameters
    ----------
    backbone
        "gabor", "open_clip:ARCHITECTURE/TAG", "timm:NAME.TAG", a short name of `braincorl.features.PRESETS`, or a
        `torch.nn.Module` of your own (which is copied).
    weights
        A local weights file, or a folder with one, in place of the published weights; "random:SEED" for random ones.
    transform
        For a module of your own: PIL picture (RGB) -> tensor (channels, y, x).
    name, preprocessing
        For a module of your own: what the provenance calls the network and its transform.
    layer
        Name of a layer to read, such as "blocks.6"; by default the network's final features.
    pooling
        "auto", "cls", "mean" or "flatten": how tokens or maps become one vector.
    normalize
        Features of unit length; "auto" is True for the networks of open_clip and timm, False for the others.
    device, precision
        "auto" or a device of torch's; "auto" (bfloat16 where the hardware multiplies it), "float32" or "bfloat16".
    batch_size
        "auto" (by free memory) or a number of images. In float32 it changes nothing but speed; in bfloat16 the last of
        its eight bits may round differently.
    workers
        Threads that decode pictures, "auto" or a number.
    background
        Colour behind transparent pixels, a name or "#rrggbb".
    offline
        Never download; by default as `HF_HUB_OFFLINE` says.
    gabor
        Settings of the backbone "gabor".

    Attributes
    ----------
    n_features : int
        Number of features of an image.
    provenance : dict
        backbone, weights, weights_sha256, preprocessing, layer, pooling, normalized, n_features, precision, versions.

    Raises
    ------
    InputError
        If an option is unknown or does not apply, or the weights are not to be had.

    Examples
    --------
    >>> import numpy as np
    >>> from braincorl.features import ImageEmbedder
    >>> images = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    >>> ImageEmbedder("gabor").embed(images).features.shape
    (2, 2728)
    """

    def __init__(
        self,
        backbone: str | torch.nn.Module,
        *,
        weights: str | Path | None = None,
        transform: Callable[[PILImage.Image], torch.Tensor] | None = None,
        name: str | None = None,
        preprocessing: str | None = None,
        layer: str | None = None,
        pooling: str = "auto",
        normalize: bool | str = "auto",
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | str = "auto",
        workers: int | str = "auto",
        background: str = "white",
        offline: bool | None = None,
        gabor: GaborConfig | None = None,
    ) -> None:
        if normalize not in (True, False, "auto"):
            raise InputError(f"normalize is {normalize!r}, but must be True, False or 'auto'.")
        self._background = check_background(background)
        options = BackboneOptions(weights, layer, pooling, device, precision, offline, gabor)
        if isinstance(backbone, str):
            if transform is not None or name is not None or preprocessing is not None:
                raise InputError(
                    "transform, name and preprocessing are for a torch.nn.Module of your own: leave them out."
                )
            self._backbone = make_named_backbone(backbone, options)
        else:
            self._backbone = module_backbone(backbone, transform, options, name=name, preprocessing=preprocessing)
        self._unit_norm = self._backbone.unit_norm if normalize == "auto" else bool(normalize)
        self._batch_size = choose_batch_size(batch_size, self._backbone)
        self._workers = n_readers(workers)

    @property
    def n_features(self) -> int:
        """Number of features of an image."""
        return self._backbone.n_features

    @property
    def provenance(self) -> dict[str, Any]:
        """Where its features come from, as it is stored with them."""
        made = dict(self._backbone.provenance)
        made["preprocessing"] = f"RGB over {self._background}; {made['preprocessing']}"
        return {**made, "normalized": self._unit_norm, "n_features": self.n_features}

    def embed(
        self,
        images: Any,
        image_ids: Sequence[str] | None = None,
        *,
        output: str | Path | None = None,
        dataset: str = DEFAULT_DATASET,
        rows: Iterable[int] | None = None,
        skip_unreadable: bool = False,
        restart: bool = False,
        progress: Progress | None = None,
    ) -> FeatureTable:
        """Embed images.

        Parameters
        ----------
        images
            One path or several (image files, folders, or one HDF5 file), or an array uint8 (n_images, height, width[,
            channels]).
        image_ids
            Names; by default file names or row numbers.
        output
            Feature file to write (`.npz`, `.h5`, `.safetensors`). What is done is kept in `OUTPUT.partial`, from which
            an interrupted run goes on; the file appears when it is complete.
        dataset, rows
            Dataset of an HDF5 file, and 0-based rows to embed.
        skip_unreadable
            Leave out images that cannot be read, in place of ending with an error.
        restart
            Throw away what an interrupted run has done.
        progress
            Called with (done, total) after each batch.

        Returns
        -------
        FeatureTable
            Float32; mapped from `output` if that is large.

        Raises
        ------
        InputError
            If an image cannot be read, or an interrupted run was of another job.
        OutOfMemoryError
            If not even one image fits into memory.
        """
        source = image_source(images, image_ids, dataset, rows, missing_ok=skip_unreadable)
        loop = _Loop(self._batch_size, self._workers, self._background, skip_unreadable, progress or _no_progress)
        if output is not None:
            check_ending(output)
            return self._embed_to_file(source, loop, Path(output), restart)
        blocks = list(self._blocks(source, loop, start=0))
        kept = _readable(blocks)
        names = list(compress(source.image_ids, kept))
        return FeatureTable(np.concatenate(blocks)[kept], np.asarray(names), self.provenance)

    def embed_text(self, texts: Sequence[str], templates: str | Sequence[str] = "plain") -> FeatureTable:
        """Embed texts into the images' space, for CLIP-like backbones.

        Parameters
        ----------
        texts
            Distinct texts; they become the table's `image_ids`.
        templates
            "plain" (the text as it is), "photo", "ensemble", or templates of your own with one `{}` each; several are
            averaged.

        Returns
        -------
        FeatureTable
            One row per text, float32.

        Raises
        ------
        InputError
            If the backbone has no language, or a text is empty.
        """
        encode = self._backbone.encode_text
        if encode is None:
            raise InputError("this backbone embeds no text: use a CLIP-like one, at its final layer.")
        if isinstance(texts, str) or not texts or any(not text.strip() for text in texts):
            raise InputError("texts must be a list of one or more texts, none of them empty.")
        check_names(texts, "the text")
        chosen = resolve_templates(templates)
        features = embed_prompts(encode, list(texts), chosen, self._batch_size)
        provenance = {key: value for key, value in self.provenance.items() if key not in _OF_IMAGES_ONLY}
        provenance["templates"] = list(chosen)
        return FeatureTable(to_unit_length(features) if self._unit_norm else features, np.asarray(texts), provenance)

    def _blocks(self, source: ImageSource, loop: _Loop, start: int) -> Iterator[FloatArray]:
        """Features of the source's rows from `start` on, batch by batch."""

        def read(row: int) -> Prepared:
            try:
                return self._backbone.prepare(source.read(row, loop.background))
            except InputError:
                if loop.skip_unreadable:
                    return None
                raise

        n_images = len(source.image_ids)
        prepared = read_ahead(read, range(start, n_images), 2 * loop.batch_size, loop.workers)
        done = start
        loop.progress(done, n_images)
        with contextlib.closing(prepared):
            for batch in in_batches(prepared, loop.batch_size):
                yield embed_batch(self._backbone, batch, self._unit_norm)
                done += len(batch)
                loop.progress(done, n_images)

    def _embed_to_file(self, source: ImageSource, loop: _Loop, output: Path, restart: bool) -> FeatureTable:
        job = {**self.provenance, "image_ids": names_hash(source), "n_images": len(source.image_ids)}
        with Journal(output, job, self.n_features, source.state, restart=restart) as journal:
            if not loop.skip_unreadable and any(np.isnan(block[:, 0]).any() for block in journal.blocks()):
                raise InputError(
                    f"{journal.path} is an unfinished run that leaves out images: do so again, or restart."
                )
            for block in self._blocks(source, loop, start=journal.n_done):
                journal.append(block)
            try:
                kept = _readable(journal.blocks())
            except InputError:
                journal.remove()  # nothing in it is worth going on from
                raise
            shape = (int(kept.sum()), self.n_features)
            blocks = (block[~np.isnan(block[:, 0])] for block in journal.blocks())
            write_matrix(output, blocks, shape, list(compress(source.image_ids, kept)), self.provenance)
            journal.remove()
        return load_features(output)


def _readable(blocks: Iterable[FloatArray]) -> np.ndarray:
    """Which rows are features; refuses a run in which none is."""
    kept = np.concatenate([~np.isnan(block[:, 0]) for block in blocks])
    if not kept.any():
        raise InputError(f"none of the {len(kept)} images could be read: embed one alone to see why.")
    if not kept.all():
        logger.warning("%d of %d images could not be read and are left out", int((~kept).sum()), len(kept))
    return kept


def _no_progress(_done: int, _total: int) -> None:
    """Do nothing."""
