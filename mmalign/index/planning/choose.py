"""Which index design suits some data and some budgets, and why, decided before anything is built."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmalign.errors import InputError, RecipeError
from mmalign.index.planning.costs import Costs
from mmalign.index.planning.estimate import Estimate, estimate, reached
from mmalign.index.planning.recipe import Device, Recipe, has_faiss_installed, list_recipes
from mmalign.index.planning.sizes import EXACT
from mmalign.types import gives_json
from mmalign.utils import show_bytes, show_bytes_up, show_seconds

# Codes that keep the order of the nearest, to about 1e-3 of a score.
_LOSSLESS = frozenset({EXACT, "Flat", "SQfp16"})


@dataclass(frozen=True, slots=True)
class Budget:
    """What an index has to keep to.

    Attributes:
        memory: Bytes that building and searching may take; None for no bound.
        latency: Seconds that one query may take; None for no bound.
        min_recall: Share of the true nearest that has to be found, above 0, at most 1.
        device: Where it is built and searched.
        queries_known: Whether there is a sample of the queries that will be asked.
        has_faiss: Whether FAISS is installed.
        threads: How many threads build.

    Raises:
        InputError: A budget that nothing can keep to.
    """

    memory: int | None = None
    latency: float | None = None
    min_recall: float = 0.95
    device: Device = "cpu"
    queries_known: bool = False
    has_faiss: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.min_recall <= 1:
            raise InputError(f"min_recall must be above 0 and at most 1, got {self.min_recall}; 0.95 is a good start")
        if self.memory is not None and self.memory < 1:
            raise InputError(f"memory must be at least 1 byte, got {self.memory}")
        if self.latency is not None and not self.latency > 0:
            raise InputError(f"latency must be above 0 seconds, got {self.latency}")
        if self.threads < 1:
            raise InputError(f"threads must be at least 1, got {self.threads}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A design that was considered.

    Attributes:
        recipe: The recipe.
        estimate: What it would take; None where its size cannot be worked out.
        refused: Why it is not taken, or an empty text.
        on_disk: Whether it keeps to the memory budget only with a part left on disk.
    """

    recipe: Recipe
    estimate: Estimate | None
    refused: str = ""
    on_disk: bool = False

    @property
    def least(self) -> float:
        """The smallest memory budget that it keeps to, in bytes."""
        found = self.estimate
        if found is None:
            return math.inf
        # Exact search over the vectors that are there builds nothing.
        return found.least_memory if found.factory == EXACT else max(found.least_memory, found.least_build_memory)

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the candidate as JSON-ready values."""
        payload = {"recipe": self.recipe.name} if self.estimate is None else self.estimate.to_dict()
        return payload | {"refused": self.refused, "on_disk": self.on_disk}


@dataclass(frozen=True, slots=True)
class IndexChoice:
    """The design that was chosen.

    Attributes:
        recipe: The recipe.
        estimate: What it takes.
        reason: Why, in a sentence.
        candidates: Every design that was considered, the chosen one first.
    """

    recipe: Recipe
    estimate: Estimate
    reason: str
    candidates: tuple[Candidate, ...]

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the choice as JSON-ready values."""
        return {"recipe": self.recipe.name, "reason": self.reason} | {
            "estimate": self.estimate.to_dict(),
            "candidates": [one.to_dict() for one in self.candidates],
        }


def choose(
    rows: int, dim: int, budget: Budget | None = None, *, recipes: Sequence[Recipe] | None = None,
    costs: Costs | None = None,
) -> IndexChoice:  # fmt: skip
    """Choose the design that suits some data and some budgets.

    Of the designs that keep to the budgets, one that is meant for this number of rows and fits into memory comes first,
    and among several the fastest; else the fastest of the others.

    Args:
        rows: How many vectors, at least 0.
        dim: Their width, at least 1.
        budget: What to keep to; None for no bounds.
        recipes: To choose from; None for those that come with mmalign.
        costs: What each step takes; None for those that come with mmalign.

    Returns:
        The choice, with all candidates and why each was not taken.

    Raises:
        InputError: `rows` or `dim` is too small, or nothing keeps to the budgets; the smallest memory that works is
            named.
    """
    budget = budget or Budget()
    found = [_judge(one, rows=rows, dim=dim, budget=budget, costs=costs) for one in recipes or list_recipes()]
    possible = sorted((one for one in found if not one.refused), key=lambda one: _rank(one, rows))
    if not possible:
        raise InputError(_impossible(found, rows=rows, dim=dim, budget=budget))
    best = possible[0]
    assert best.estimate is not None
    others = [Candidate(one.recipe, one.estimate, _after(one, best, rows), one.on_disk) for one in possible[1:]]
    refused = [one for one in found if one.refused]
    reason = _reason(best, rows=rows, dim=dim, budget=budget, found=found)
    return IndexChoice(best.recipe, best.estimate, reason, (best, *others, *refused))


def chooses_exact(rows: int, dim: int, budget: Budget | None = None) -> bool:
    """Whether `auto` holds exact search to be best, for which the vectors themselves are enough.

    Args:
        rows: How many vectors.
        dim: Their width.
        budget: What to keep to; None for no bounds and what is installed.

    Returns:
        True where an index would gain nothing.

    Raises:
        InputError: Nothing keeps to the budgets.
    """
    return choose(rows, dim, budget or installed_budget()).recipe.factory == EXACT


def check_memory(recipe: Recipe, *, rows: int, dim: int, memory: int | None) -> None:
    """Refuse to build a design that a memory budget is too small for, before anything is built.

    Args:
        recipe: The design.
        rows: How many vectors.
        dim: Their width.
        memory: Bytes that building may take; None for no bound.

    Raises:
        InputError: It is too small; the smallest that works is named.
    """
    if memory is None:
        return
    try:
        least = estimate(recipe, rows=rows, dim=dim).least_build_memory
    except RecipeError:
        # What the size of a design depends on is not always known; then the build has to show.
        return
    if least > memory:
        raise InputError(
            f"building {recipe.name} over {rows:,} vectors of dim {dim} takes at least {show_bytes_up(least)} of "
            f"memory, got a budget of {show_bytes(memory)}; allow more, or let the recipe auto choose for the budget"
        )


def installed_budget() -> Budget:
    """No bounds, with the FAISS and the processors that are here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Budget(has_faiss=has_faiss_installed(), threads=cores)


def _judge(recipe: Recipe, *, rows: int, dim: int, budget: Budget, costs: Costs | None) -> Candidate:
    """A design with the first reason why it cannot be taken."""
    try:
        found = estimate(recipe, rows=rows, dim=dim, min_recall=budget.min_recall, threads=budget.threads, costs=costs)
    except RecipeError as error:
        return Candidate(recipe, None, str(error))
    memory = math.inf if budget.memory is None else budget.memory
    on_disk = recipe.storage == "disk" or found.memory > memory
    return Candidate(recipe, found, _refusal(recipe, found, budget, memory=memory, on_disk=on_disk), on_disk)


def _refusal(recipe: Recipe, found: Estimate, budget: Budget, *, memory: float, on_disk: bool) -> str:
    latency = found.latency_on_disk if on_disk else found.latency
    most = reached(recipe)
    exact = recipe.filter_support == "exact" and found.factory in _LOSSLESS
    if recipe.device != budget.device and found.factory != EXACT:
        return f"it is for device {recipe.device}"
    if not budget.has_faiss and found.factory != EXACT:
        return "FAISS is not installed"
    if recipe.query_aware and not budget.queries_known:
        return "it learns from queries, and none are known"
    if found.least_memory > memory:
        return f"searching takes {show_bytes(found.least_memory)} of memory"
    if found.factory != EXACT and found.least_build_memory > memory:
        return f"building takes {show_bytes(found.least_build_memory)} of memory"
    if budget.min_recall == 1 and not exact:
        return "it may miss some of the nearest"
    if most is not None and most < budget.min_recall:
        return f"it found at most {most:.1%} of the nearest where it was measured"
    if budget.latency is not None and latency is not None and latency > budget.latency:
        return f"a query takes about {show_seconds(latency)}"
    return ""


def _rank(one: Candidate, rows: int) -> tuple[bool, float, str]:
    return not (_meant(one.recipe, rows) and not one.on_disk), _latency(one), one.recipe.name


def _meant(recipe: Recipe, rows: int) -> bool:
    return recipe.min_rows is not None and recipe.min_rows <= rows < (recipe.max_rows or math.inf)


def _latency(one: Candidate) -> float:
    found = one.estimate
    latency = None if found is None else found.latency_on_disk if one.on_disk else found.latency
    # Where no time is known, designs go by what they read.
    return latency if latency is not None else math.inf if found is None else 1e-12 * found.memory


def _after(one: Candidate, best: Candidate, rows: int) -> str:
    """Why a design that keeps to the budgets comes after the chosen one."""
    if one.on_disk and not best.on_disk:
        return "a part of it would have to stay on disk"
    if _meant(best.recipe, rows) and not _meant(one.recipe, rows):
        return f"it is not meant for {rows:,} vectors"
    return f"a query takes about {show_seconds(_latency(one))}, and {show_seconds(_latency(best))} with the chosen one"


def _reason(best: Candidate, *, rows: int, dim: int, budget: Budget, found: Sequence[Candidate]) -> str:
    name, size = best.recipe.name, f"{rows:,} vectors of dim {dim}"
    usable = [one.recipe for one in found if budget.queries_known or not one.recipe.query_aware]
    meant = [recipe.name for recipe in usable if _meant(recipe, rows) and recipe is not best.recipe]
    if best.recipe.factory == EXACT and not budget.has_faiss and meant:
        return f"{size}: {name}, since FAISS is not installed; pip install 'mmalign[cpu]' for {' or '.join(meant)}"
    text = f"{size}: {name}, since {best.recipe.why}"
    ruled_out = [
        f"{one.recipe.name} is not taken because {one.refused}"
        for one in found
        if one.refused and _meant(one.recipe, rows) and one.recipe.device == budget.device
    ]
    if ruled_out and not _meant(best.recipe, rows):
        text += f"; {' and '.join(ruled_out)}"
    if best.on_disk and best.recipe.storage == "memory":
        text += "; what candidates are compared again with stays on disk"
    return text


def _impossible(found: Sequence[Candidate], *, rows: int, dim: int, budget: Budget) -> str:
    """Say which budget is to blame and what would do."""
    size = f"{rows:,} vectors of dim {dim}"
    if budget.memory is not None:
        free = replace(budget, memory=None)
        # Asked again without a bound, each tells what else is wrong with it, and then from which memory on it works.
        works: list[tuple[int, str]] = []
        for one in found:
            needed = one.least
            if one.estimate is None or math.isinf(needed):
                continue
            memory = math.ceil(needed)
            on_disk = one.recipe.storage == "disk" or one.estimate.memory > memory
            if not _refusal(one.recipe, one.estimate, free, memory=math.inf, on_disk=on_disk):
                works.append((memory, one.recipe.name))
            elif not _refusal(one.recipe, one.estimate, free, memory=math.inf, on_disk=False):
                works.append((max(memory, one.estimate.memory), one.recipe.name))
        if works:
            memory, name = min(works)
            return (
                f"no index of {size} keeps to {show_bytes(budget.memory)} of memory; the smallest budget that works "
                f"is {show_bytes_up(memory)}, with {name}"
            )
    refusals = "; ".join(f"{one.recipe.name}: {one.refused}" for one in found)
    return f"no index of {size} keeps to the budgets ({refusals}); ask for less recall, or allow more time or memory"
