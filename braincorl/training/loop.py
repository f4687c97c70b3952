"""The training loop: stages, validation, early stopping, and a state on disk from which a killed run goes on exactly.

Episode k of a stage is drawn from the seed (recipe, stage, k), so what a step learns from does not depend on how many
processes share the work or how often it was interrupted. With several processes (torchrun), each takes every
`world_size`-th episode of a step and gradients are averaged over all of them before the optimiser moves.
"""

import logging
import os
import pickle
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.data import DataLoader

from braincorl.checkpoint import save_checkpoint
from braincorl.errors import InputError, OutputError
from braincorl.models import ReferenceTransformer
from braincorl.models.hardware import resolve_device
from braincorl.priors import GroupPrior
from braincorl.storage.files import Progress
from braincorl.threads import limited_threads
from braincorl.training.episodes import Episodes, PreparedEpisode, to_device
from braincorl.training.judge import Judge
from braincorl.training.objective import error
from braincorl.training.processes import Processes
from braincorl.training.recipe import Recipe, StageConfig
from braincorl.training.sources import read_source
from braincorl.training.state import STATE, State, read_state, write_log, write_state
from braincorl.training.voxels import Memory
from braincorl.validation import spell_precision

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
_CLIP = 1.0  # of the gradient's norm, as usual for transformers


class _Trainer:
    """Trains one network after a recipe; see `train`. Files of all stages are read here, before anything is learned."""

    def __init__(
        self, recipe: Recipe, folder: Path, device: str, precision: str, n_workers: int, save_seconds: float
    ) -> None:
        self.recipe, self.folder, self.device = recipe, folder, torch.device(device)
        self.precision = spell_precision(precision, ("float32", "bfloat16"))
        self.n_workers, self.save_seconds = n_workers, save_seconds
        self.processes = Processes.current(self.device)
        if recipe.n_validation < self.processes.count:
            raise InputError(
                f"n_validation is {recipe.n_validation}, but must be at least 1 for each of the {self.processes.count} "
                "processes."
            )
        for stage in recipe.stages:
            if stage.people_per_step % self.processes.count:
                raise InputError(
                    f"stage {stage.name!r}: people_per_step is {stage.people_per_step}, but must be a multiple of the "
                    f"{self.processes.count} processes."
                )
        self.digest = recipe.digest
        memories = [Memory.of(GroupPrior.load(name)) for name in recipe.priors]
        self.sources = [read_source(stage, recipe.network.n_features, memories) for stage in recipe.stages]
        torch.manual_seed(recipe.seed)
        self.network = ReferenceTransformer(recipe.network).to(self.device)
        self.state, self.best_weights = State(), self._weights()
        self.optimizer = self._new_optimizer(recipe.stages[0])

    def run(self, progress: Progress | None = None) -> None:
        """Go on from the state on disk, or begin, and finish every stage.

        Parameters
        ----------
        progress
            Called with (steps done, steps of all stages).
        """
        self._resume()
        done = [0, *np.cumsum([stage.n_steps for stage in self.recipe.stages]).tolist()]
        while self.state.stage < len(self.recipe.stages):
            base = done[self.state.stage]
            report = None if progress is None else (lambda step, base=base: progress(base + step, done[-1]))
            self._run_stage(self.recipe.stages[self.state.stage], report)
            if self.recipe.stages[self.state.stage].real is not None:
                self.network.load_state_dict(self.best_weights)
            self.state = State(stage=self.state.stage + 1, rows=self.state.rows)
            if self.state.stage < len(self.recipe.stages):
                self.optimizer = self._new_optimizer(self.recipe.stages[self.state.stage])
            self._save()
        if self.processes.rank == 0:
            save_checkpoint(self.folder / CHECKPOINT, self.network, self._header())

    def _run_stage(self, stage: StageConfig, report: Callable[[int], None] | None) -> None:
        share, source = stage.people_per_step // self.processes.count, self.sources[self.state.stage]
        judge = Judge(source.judge, self.state.stage, self.recipe.n_validation, self.processes)
        numbers = [
            step * stage.people_per_step + self.processes.rank + self.processes.count * i
            for step in range(self.state.step, stage.n_steps)
            for i in range(share)
        ]
        episodes = Episodes(source.learn, (self.recipe.seed, self.state.stage), numbers)
        # Episodes travel through pipes, as bytes. PyTorch would put them into shared memory, and where that is full or
        # limited (containers, `ulimit -f`) a worker drops them and goes on, and both processes wait for ever.
        loader = DataLoader(
            episodes, batch_size=None, num_workers=self.n_workers, worker_init_fn=_one_thread, collate_fn=pickle.dumps,
            prefetch_factor=8 if self.n_workers else None,
        )  # fmt: skip
        stream = map(pickle.loads, loader)
        saved = time.monotonic()
        for step in range(self.state.step, stage.n_steps):
            torch.manual_seed(hash((self.recipe.seed, self.state.stage, step, self.processes.rank)) % 2**31)
            self.state.losses.append(
                self._step(stage, step, [to_device(next(stream), self.device) for _ in range(share)])
            )
            self.state.step = step + 1
            if report is not None:
                report(step + 1)
            if (step + 1) % stage.validate_every == 0 or step + 1 == stage.n_steps:
                self._validate(stage, judge)
                if stage.real is not None and self.state.stale >= stage.patience:
                    logger.info("stage %s: no better for %d validations, stopped", stage.name, stage.patience)
                    return
                self._save()
                saved = time.monotonic()
            elif time.monotonic() - saved >= self.save_seconds:
                self._save()
                saved = time.monotonic()

    def _step(self, stage: StageConfig, step: int, items: list[PreparedEpisode]) -> float:
        """One step of the optimiser; gives the mean loss of its episodes."""
        rate = stage.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.network.train()
        self.optimizer.zero_grad(set_to_none=False)
        losses = []
        for item in items:
            with self._autocast():
                loss = error(self.network, item)
            (loss / stage.people_per_step).backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
        self.processes.add_gradients(self.network.parameters())
        nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP)
        self.optimizer.step()
        return self.processes.mean(losses)

    def _validate(self, stage: StageConfig, judge: Judge) -> None:
        """Judge the network, and add a row to the log."""
        state, score = self.state, judge.score(self.network, self._autocast())
        loss, state.losses = float(np.mean(state.losses)), []
        row = {"stage": stage.name, "step": state.step, "loss": loss, "network": score}
        state.rows.append(row | {"cross-validated ridge": judge.ridge})
        if score > state.best:
            state.best, state.stale, self.best_weights = score, 0, self._weights()
        else:
            state.stale += 1
        logger.info(
            "stage %s, step %d of %d: loss %.4f, EV %.4f, cross-validated ridge %.4f",
            stage.name, state.step, stage.n_steps, loss, score, judge.ridge,
        )  # fmt: skip

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def _new_optimizer(self, stage: StageConfig) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), lr=stage.learning_rate, weight_decay=stage.weight_decay)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}

    def _save(self) -> None:
        if self.processes.rank != 0:
            return
        content = {
            "recipe": self.digest,
            "network": self._weights(),
            "best": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "state": asdict(self.state),
        }
        write_state(self.folder, content, self.state.rows)

    def _resume(self) -> None:
        content = read_state(self.folder, self.digest)
        if content is None:
            return
        self.state = State(**content["state"])
        self.network.load_state_dict(content["network"])
        self.best_weights = content["best"]
        if self.processes.rank == 0:
            write_log(self.folder, self.state.rows)  # which a kill after the state was saved leaves a validation behind
        if self.state.stage < len(self.recipe.stages):
            self.optimizer = self._new_optimizer(self.recipe.stages[self.state.stage])
            self.optimizer.load_state_dict(content["optimizer"])
            logger.info("going on at stage %d, step %d", self.state.stage + 1, self.state.step)

    def _header(self) -> dict[str, Any]:
        last = self.state.rows[-1] if self.state.rows else {}
        people = sum(stage.people for stage in self.recipe.stages)
        training = {"recipe": asdict(self.recipe), "digest": self.digest, "people": people, "validation": last}
        inputs = {"features": "unit norm", "responses": "z-scored"}
        return {"training": training, "backbone": "unknown", "inputs": inputs}


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    device: str = "cpu",
    precision: str = "float32",
    n_workers: int = 1,
    progress: Progress | None = None,
    save_seconds: float = 60.0,
) -> Path:
    """Train a network, or go on with it.

    Parameters
    ----------
    recipe
        What to do.
    folder
        Holds `state.pt` (to go on from), `log.tsv`, and in the end `checkpoint.safetensors`.
    device
        "auto" (a GPU if there is one), "cpu", "cuda", …
    precision
        "float32", or "bfloat16" for autocast.
    n_workers
        Processes that draw episodes; 0 draws in this one.
    progress
        Called with (steps done, steps of all stages).
    save_seconds
        Write the state at the latest after so many seconds.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    InputError
        If the folder holds anything but a run of this recipe, or a file of the recipe is missing or has changed.
    """
    folder, device = Path(folder), str(resolve_device(device))
    _check_own(folder)
    launched = "RANK" in os.environ and "WORLD_SIZE" in os.environ and not dist.is_initialized()
    if launched:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        if device == "cuda":
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        # One thread, here as in the workers: with another count, sums round differently and a seed would not fix the
        # network; and on small matrices by the thousand, several threads cost more than they gain.
        with limited_threads(1, torch=True):
            trainer = _Trainer(recipe, folder, device, precision, n_workers, save_seconds)
            _make(folder)
            trainer.run(progress if trainer.processes.rank == 0 else None)
    finally:
        if launched:
            dist.destroy_process_group()
    return folder / CHECKPOINT


def _check_own(folder: Path) -> None:
    """Refuse a folder of something else; a run killed in its first save leaves a torn `.partial-*-state.pt` alone."""
    foreign = folder.exists() and (
        not folder.is_dir() or any(not path.match(f".partial-*-{STATE}") for path in folder.iterdir())
    )
    if foreign and not (folder / STATE).is_file():
        raise InputError(f"{folder} exists and holds no run of braincorl train: choose another --output-dir.")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}): choose another folder.") from error


def _one_thread(_: int) -> None:
    """Keep workers from crowding out one another, and their rounding that of the main process."""
    threadpool_limits(1)
