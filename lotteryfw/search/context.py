"""The context of one cell's tickets: its components, their digests, its network at step 0."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lotteryfw.api.component import Component
from lotteryfw.api.data import DatasetInfo
from lotteryfw.api.errors import ContractError, UsageError
from lotteryfw.api.fingerprints import fingerprint_of
from lotteryfw.api.kinds import Analysis, DataSource, MaskCriterion, SearchAlgorithm
from lotteryfw.api.layers import LATEST, Group, LayerInfo, MaskedNetwork, Need
from lotteryfw.api.rng import Label, Stream, stream
from lotteryfw.api.steps import Clock
from lotteryfw.api.tickets import RewindPoint, Ticket, Trained
from lotteryfw.search.cell import Cell
from lotteryfw.search.guard import blame, describe
from lotteryfw.search.initial_cache import cached_initial_state
from lotteryfw.search.initial_state import InitialState, draw_weight
from lotteryfw.search.jobs import Spec
from lotteryfw.search.numerics import numerics
from lotteryfw.search.pruning import Pruner
from lotteryfw.search.top_k import check_tensor, require_finite

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Describe = Callable[[Component, Clock], Spec]
"""A function that names a component as jobs do, with the distribution that provides it."""

_SLOTS = (
    "search", "criterion", "scope", "mask1", "mask0", "rewind", "model", "initialiser", "data", "objective",
    "optimizer", "schedule", "parametrization", "scores", "mask_optimizer", "mask_update",
)  # fmt: skip
_LEARNING_SLOTS = ("parametrization", "scores", "mask_optimizer")
_COMPUTED_BY = ("deterministic", "compiled")
"""Options of a cell that say how trainings and evaluations compute a network."""
_UPDATED_BY = ("accumulate", "activation_checkpointing", "devices", "sync_batch_norm")
"""Options of a cell that say how an update is made. Checkpointed activations change no result, but
the choice of the kernel."""


class SearchContext:
    """One cell as its search and its tickets need it.

    Making one builds no network and does not import torch: the network is built when its layers or
    values are first looked at. So a plan and a run use the same context.
    """

    def __init__(
        self,
        cell: Cell,
        describe_component: Describe,
        data_folder: Path,
        device: str,
        engine: str = "",
    ):
        """`engine` is the state of the code that chooses and runs kernels: see `engine_version`."""
        self.cell = cell
        self.describe = describe_component
        self.seed = cell.seed
        self.seeds = cell.seeds
        self.clock = cell.clock
        self.device = device
        self.engine = engine
        # A GPU may give other bits the second time, and what is pruned after such a training has
        # another key.
        self.origins_decide = device == "cpu" and engine != ""
        self.specs: dict[str, Spec] = {}
        for slot in _SLOTS:
            part = getattr(cell, slot)
            if part is not None:
                self.specs[slot] = describe_component(part, cell.clock)
        # The gradient is a probe that the engine has itself; its rounding depends on the batches.
        gradient = Spec("probe", "gradient", "lotteryfw", {"batch": cell.batch})
        available = {Need.GRADIENT: gradient, Need.PROBE: self.specs["criterion"]}
        needs = needs_of(cell.criterion) | needs_of(cell.search)
        # Analyses ask for their probes themselves, so that no training is probed for nothing.
        later = frozenset[Need]().union(*(needs_of(analysis) for analysis in cell.analyses))
        self.probe_specs = {need: spec for need, spec in available.items() if need in needs}
        """What every training of the search is probed for."""
        self.all_probe_specs = {
            need: spec for need, spec in available.items() if need in needs | later
        }
        """What a search or an analysis may ask of a training."""
        self.augment = tuple(describe_component(part, cell.clock) for part in cell.augment)
        self.fingerprint = fingerprint_of(cell.data, data_folder)
        self._data_folder = data_folder
        self.point = cell.rewind.point(cell.clock)
        self._point_part = _point_part(self.point)
        self._is_augmented = bool(self.augment)
        # A state is saved at a step of the dense run, and LATEST is none.
        if self.point.weights == LATEST and self.point.optimizer == "saved":
            raise ContractError(
                f"rewind '{cell.rewind.use}': a saved optimizer state needs a step to be saved at"
            )
        self._digest_components()

    # Data

    def dataset_info(self, data: DataSource | None = None) -> DatasetInfo:
        """Return what is known of a data set before it is read; None: the cell's own."""
        return (data or self.cell.data).facts(self._data_folder)

    def fingerprint_of(self, data: DataSource) -> str:
        """Return the fingerprint of another data set than the cell's."""
        return fingerprint_of(data, self._data_folder)

    # The network at step 0

    @cached_property
    def initial(self) -> InitialState:
        """The network's layers and values at step 0."""
        drawn = self.initial_of(self.seeds.init)
        return drawn if self.cell.start is None else self.cell.start.applied(drawn)

    def initial_of(self, seed: int) -> InitialState:
        """Return the network as another seed draws it."""
        facts = self.cell.data.facts(self._data_folder)
        return cached_initial_state(self.cell, self.specs, facts, seed)

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The prunable layers in order, the output layer last."""
        return self.initial.layers

    @cached_property
    def pruner(self) -> Pruner:
        """Makes masks within the budgets of the cell's scope."""
        specs = self.specs
        return Pruner(
            self.cell.scope,
            specs["scope"],
            specs["criterion"],
            self.layers,
            self.seed,
            self.seeds.ties,
        )

    def fresh_weights(
        self, layer: LayerInfo, level: int, drawn_for: tuple[Stream, ...] = ()
    ) -> Tensor:
        """Return a fresh draw of a layer from the initialiser: float32 [s].

        Every call at one level returns the same draw. `drawn_for` are further labels of the stream:
        other ones, another draw.
        """
        rng = stream(self.seeds.init, Stream.REINITIALISE, *drawn_for, level, layer.name)
        return draw_weight(self.cell.initialiser, self.specs["initialiser"], layer, rng)

    # Where rounds start

    def point_at(self, length: int | None) -> RewindPoint:
        """Return the rewind policy's point on a schedule of this length; None: the recipe's."""
        if length is None:
            return self.point
        return self.cell.rewind.point(Clock(length, self.clock.steps_per_epoch))

    # Learned masks

    def initial_scores(self, layer: LayerInfo) -> Tensor:
        """Return the scores that a layer begins with: float32 [s]."""
        rng = stream(self.seeds.scores, Stream.SCORES, layer.name)
        shape = self.score_shape(layer)
        if self.cell.scores is not None:
            return draw_weight(self.cell.scores, self.specs["scores"], layer, rng)
        assert self.cell.parametrization is not None
        spec = self.specs["parametrization"]
        with blame(spec, "initial", layer):
            value = self.cell.parametrization.initial(layer, rng)
        what = f"{describe(spec)}: initial() on layer {layer.name}"
        scores = check_tensor(value, shape, what).float()
        require_finite(scores, what)
        return scores

    def score_shape(self, layer: LayerInfo) -> tuple[int, ...]:
        """Return the shape of a layer's scores.

        Raises UsageError where they are not one for each edge and the recipe names an initialiser
        for them, which draws as many as there are edges.
        """
        assert self.cell.parametrization is not None
        spec = self.specs["parametrization"]
        with blame(spec, "score_shape", layer):
            shape = tuple(self.cell.parametrization.score_shape(layer))
        if self.cell.scores is not None and shape != layer.shape:
            raise UsageError(
                f"scores: the initialiser '{self.cell.scores.use}' draws a score for each edge, "
                f"{list(layer.shape)} of layer {layer.name}; those of the parametrization "
                f"'{self.cell.parametrization.use}' have shape {list(shape)}: leave `scores` out"
            )
        return shape

    def masks_of(self, net: MaskedNetwork) -> dict[str, Tensor]:
        """Return, by layer, the masks that scores stand for: bool [s].

        Raises ContractError where the parametrization returns anything else.
        """
        import torch

        assert self.cell.parametrization is not None
        spec = self.specs["parametrization"]
        with blame(spec, "masks", *net.edges.values()):
            masks = self.cell.parametrization.masks(net)
        # What was removed stays removed, whatever a parametrization returns.
        for name, edges in net.edges.items():
            mask = masks.get(name)
            fits = mask is not None and mask.dtype == torch.bool and mask.shape == edges.info.shape
            if mask is None or not fits or bool((mask & ~edges.allowed).any()):
                raise ContractError(
                    f"{describe(spec)}: masks() must give a bool mask of shape "
                    f"{list(edges.info.shape)} for layer {name}, alive only where edges.allowed"
                )
        return masks

    def draw(self, layer: LayerInfo, rng: torch.Generator) -> Tensor:
        """Return weights that the recipe's initialiser draws for a layer: float32 [s]."""
        return draw_weight(self.cell.initialiser, self.specs["initialiser"], layer, rng)

    # Digests, which distinguish tickets and jobs before any tensor is known

    # Those that every plan needs are hashed when the context is made, the others when they are
    # first looked at: a large grid has tens of thousands of contexts.

    def _digest_components(self) -> None:
        cell = self.cell
        begins: list[object] = [self.seeds.init]
        if cell.start is not None:
            begins.append(cell.start.digest)
        self.dense_digest = digest_of("dense", self._network_digest, self.fingerprint, *begins)
        # Beside the training, these seeds decide what is pruned and the values that start a round.
        self.draws_digest = f"{self.seed}\x1f{self.seeds.init}\x1f{self.seeds.ties}"
        self.pruning_digest = self._combined("criterion", "scope", "mask1", "mask0", "rewind")
        self._training_digest = digest_of(
            self._combined("objective", "optimizer", "schedule"),
            *(spec.digest for spec in self.augment),
            cell.batch, cell.clock.total, cell.clock.steps_per_epoch, cell.evaluate_every,
            cell.kernel, cell.sparse_below, cell.precision, cell.memory_format,
            *_changed(cell, _COMPUTED_BY), *_changed(cell, _UPDATED_BY), numerics(self.device),
            self.engine,
        )  # fmt: skip

    @property
    def _network_digest(self) -> str:
        return self._combined("model", "initialiser", "data", "objective")

    @property
    def initialiser_digest(self) -> str:
        return self._combined("initialiser")

    @property
    def rewind_digest(self) -> str:
        return self._combined("rewind")

    @property
    def random_digest(self) -> str:
        """The digest of what decides random masks within the scope's budgets."""
        return self._combined("scope", "rewind")

    @property
    def masking_digest(self) -> str:
        """The digest of what decides learned masks beside their training."""
        return self._combined("mask1", "scope", *_LEARNING_SLOTS)

    @property
    def update_digest(self) -> str:
        """The digest of what changes masks in training; empty without a mask update."""
        if self.cell.mask_update is None:
            return ""
        return self._combined("mask_update", "initialiser")

    @cached_property
    def evaluation_digest(self) -> str:
        """The digest of what decides an evaluation beside the network that is measured."""
        cell, specs = self.cell, self.specs
        learned = [specs[slot].digest for slot in _LEARNING_SLOTS if slot in specs]
        return digest_of(
            self._network_digest, self.fingerprint, *learned,
            *(spec.digest for spec in self.augment), cell.batch, cell.clock.steps_per_epoch,
            self.seeds.order, self.seeds.augment, self.seeds.scores, cell.precision,
            cell.memory_format, *_changed(cell, _COMPUTED_BY), numerics(self.device), self.engine,
        )  # fmt: skip

    def _combined(self, *slots: str) -> str:
        """Return one digest of the components in these slots; slots without one are left out."""
        return _combined(*[self.specs[slot].digest for slot in slots if slot in self.specs])

    def job_digest(self, ticket: Ticket) -> str:
        """Return the digest of a training that starts from a ticket.

        Equal digests are equal jobs, kernel and tensors included: all that decides the job's key
        is in it.
        """
        point = ticket.point
        # Nearly every ticket of a plan starts from the policy's point.
        start = self._point_part if point is self.point else _point_part(point)
        seeds = self.seeds.of_training(ticket, self._is_augmented)
        return sha256_of(
            f"train\x1f{ticket.origin}\x1f{self._training_digest}\x1f{start}\x1f{ticket.length}"
            f"\x1f{ticket.level}\x1f{ticket.learns_mask}\x1f{seeds.digest_part}"
        )

    def probe_digest(self, trained: Trained, need: Need) -> str:
        """Return the digest of a probe of a network after its training.

        As that of `job_digest`, it has all that decides the job's key.
        """
        spec, level = self.all_probe_specs[need], trained.ticket.level
        labels = self.probe_labels(need, level)
        run_by = (numerics(self.device), self.engine)
        return digest_of("probe", spec.digest, labels, self.training_digest(trained), *run_by)

    def probe_labels(self, need: Need, level: int) -> tuple[Label, ...]:
        """Return the labels of the streams of a probe: none for one that draws nothing."""
        if need is Need.GRADIENT:
            return ()
        return (self.seed, level, self.cell.criterion.use)

    def training_digest(self, trained: Trained) -> str:
        """Return the digest of the training that made a network."""
        # A plan has hundreds of thousands of trainings, and each was hashed when it was asked for.
        return trained.origin or self.job_digest(trained.ticket)

    def parents_digest(self, ticket: Ticket, trained: Trained, root: Trained) -> str:
        """Return what a ticket's digest has of its parents.

        They are another ticket, its training, and the training that rewinding goes back to.
        """
        # Both have an origin unless somebody made them by hand, and a call takes longer than `or`.
        job = trained.origin or self.training_digest(trained)
        first = root.origin or self.training_digest(root)
        is_probed = bool(trained.probes)
        return f"{ticket.origin}\x1f{ticket.level}\x1f{job}\x1f{is_probed}\x1f{first}"


def needs_of(component: MaskCriterion | SearchAlgorithm | Analysis) -> frozenset[Need]:
    """Return what a component needs, and what the criteria among its options need."""
    needs = component.needs
    for nested in component.nested():
        if isinstance(nested, MaskCriterion):
            needs |= nested.needs
    return needs


def digest_of(*parts: object) -> str:
    """Return the SHA-256 (hex) of parts as text."""
    return sha256_of("\x1f".join(map(str, parts)))


def _changed(cell: Cell, options: Sequence[str]) -> Iterator[str]:
    """Yield, as parts of a digest, those options of a cell that are not at their default."""
    for name in options:
        value = getattr(cell, name)
        if value != getattr(Cell, name):
            yield f"{name}={value}"


def _point_part(point: RewindPoint) -> str:
    """Return a point as a part of a job's digest; its buffers are in the ticket's origin."""
    return f"{point.weights}\x1f{point.schedule}\x1f{point.steps}\x1f{point.optimizer}"


def sha256_of(text: str) -> str:
    """Return the SHA-256 (hex) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache  # the seeds of a study have the same components
def _combined(*digests: str) -> str:
    return digest_of(*digests)


def single_layer_groups(kept: Mapping[str, int]) -> list[Group]:
    """Return a budget of its own for each layer."""
    return [Group((name,), count, count) for name, count in kept.items()]
