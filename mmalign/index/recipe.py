"""Index recipes: what to build, read from TOML files, chosen by size, and built."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import EnvironmentConflictError, MissingExtraError, RecipeError
from mmalign.index.base import FilterSupport, Index
from mmalign.index.exact import ExactIndex
from mmalign.similarity import Float32Array, Int64Array

_PACKAGE = "mmalign.recipes"
_PER_CENTROID = 64
# Lists get at least this many vectors each; FAISS warns below.
_ROWS_PER_LIST = 39
Chunks = Callable[[], Iterable[tuple[Int64Array, NDArray[Any]]]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One index design.

    Attributes:
        name: How it is asked for.
        summary: What it is, in a sentence.
        factory: `exact`, or a FAISS factory string in which {nlist} and {m} stand for what fits the data.
        metric: Always `inner_product`.
        device: `cpu`.
        min_rows: `auto` takes it from this many rows on; None for never.
        max_rows: `auto` takes it below this many rows; None for no bound.
        why: Why it suits that size.
        vectors_per_centroid: Training sample, in vectors for each list or code.
        effort: FAISS's name for the effort, or None.
        default_effort: Effort of a search that names none; None for what suits the size.
        effort_choices: Efforts worth trying.
        k_factor: How many times k candidates are compared again, where there is a refinement.
        filter_support: How it filters, or None where only the built index knows.
        min_share: Share of allowed rows below which exact search is better, or None where only the index knows.
        measured: Figures, each a table.
    """

    name: str
    summary: str
    factory: str
    metric: str = "inner_product"
    device: str = "cpu"
    min_rows: int | None = None
    max_rows: int | None = None
    why: str = ""
    vectors_per_centroid: int = _PER_CENTROID
    effort: str | None = None
    default_effort: int | None = None
    effort_choices: tuple[int, ...] = ()
    k_factor: int | None = None
    filter_support: FilterSupport | None = None
    min_share: float | None = None
    measured: tuple[Mapping[str, Any], ...] = field(default=())

    def resolve(self, *, rows: int, dim: int) -> str:
        """Return the factory string for some data.

        Args:
            rows: How many vectors.
            dim: Their width.

        Returns:
            The factory string, with nothing left to fill in.

        Raises:
            RecipeError: It has a placeholder other than {nlist} and {m}.
        """
        nlist = max(1, min(round(4 * math.sqrt(rows)), rows // _ROWS_PER_LIST))
        try:
            return self.factory.format(nlist=nlist, m=dim // 2 if dim % 2 == 0 else dim)
        except (KeyError, IndexError, ValueError) as error:
            raise RecipeError(
                f"recipe {self.name}: factory {self.factory!r} may hold {{nlist}} and {{m}}, and no other braces"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON-ready values."""
        return asdict(self) | {
            "effort_choices": list(self.effort_choices),
            "measured": [dict(table) for table in self.measured],
        }


def parse_recipe(text: str, *, origin: str) -> Recipe:
    """Read a recipe.

    Args:
        text: TOML.
        origin: Where it came from, for the error's text.

    Returns:
        The recipe.

    Raises:
        RecipeError: Not TOML, a key missing or unknown, or a metric or device that is not served.
    """
    try:
        values = tomllib.loads(text)
        use, search, kept = values.pop("use", {}), values.pop("search", {}), values.pop("filter", {})
        recipe = Recipe(
            **use,
            **values.pop("training", {}),
            effort=search.pop("effort", None),
            default_effort=search.pop("default", None),
            effort_choices=tuple(search.pop("choices", ())),
            filter_support=kept.pop("support", None),
            min_share=kept.pop("min_share", None),
            measured=tuple(values.pop("measured", ())),
            **search,
            **kept,
            **values,
        )
    except (tomllib.TOMLDecodeError, TypeError, AttributeError) as error:
        raise RecipeError(f"{origin} is not an index recipe: {error}") from error
    if recipe.metric != "inner_product":
        raise RecipeError(f"{origin}: metric must be inner_product, got {recipe.metric!r}")
    if recipe.device != "cpu":
        raise RecipeError(f"{origin}: device must be cpu, got {recipe.device!r}")
    return recipe


def list_recipes() -> list[Recipe]:
    """Return the recipes that come with mmalign, the one for the fewest rows first."""
    found = [
        parse_recipe(entry.read_text(encoding="utf-8"), origin=entry.name)
        for entry in resources.files(_PACKAGE).iterdir()
        if entry.name.endswith(".toml")
    ]
    return sorted(found, key=lambda recipe: (math.inf if recipe.min_rows is None else recipe.min_rows, recipe.name))


def load_recipe(spec: str) -> Recipe:
    """Find a recipe.

    Args:
        spec: Name of a recipe, path of a `.toml` file, or a FAISS factory string.

    Returns:
        The recipe; for a factory string, one with that string as its name.

    Raises:
        RecipeError: It means nothing; near matches are named.
        MissingExtraError: A factory string, and FAISS is not installed.

    Example:
        >>> load_recipe("hnsw").effort
        'efSearch'
    """
    recipes = {recipe.name: recipe for recipe in list_recipes()}
    if spec in recipes:
        return recipes[spec]
    if spec == "auto":
        raise RecipeError("auto is chosen by the number of rows: use choose_recipe or build_index")
    if spec.endswith(".toml"):
        try:
            text = Path(spec).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"recipe file {spec} cannot be read: {error}") from error
        return parse_recipe(text, origin=spec)
    if spec == "exact":
        return recipes["flat"]
    names = [*recipes, "auto"]
    near = difflib.get_close_matches(spec.lower(), names, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"the recipes are {', '.join(names)}"
    if not spec or spec[0].islower():
        # FAISS's factory strings begin with a capital, recipes do not; this needs no FAISS to say so.
        raise RecipeError(f"unknown index recipe {spec!r}; {remedy} Any FAISS factory string works too, such as SQ8")
    from mmalign.index.faiss import FaissIndex

    try:
        # A width with many divisors, so that only what is wrong with the string itself is found here.
        FaissIndex(spec, 5040)
    except RecipeError as error:
        raise RecipeError(f"unknown index recipe {spec!r}; {remedy} Nor is it for FAISS: {error}") from error
    return Recipe(name=spec, summary="FAISS factory string", factory=spec)


def choose_recipe(rows: int, dim: int, *, has_faiss: bool) -> tuple[Recipe, str]:
    """Choose the recipe that suits a number of vectors.

    Args:
        rows: How many vectors.
        dim: Their width.
        has_faiss: Whether FAISS is installed.

    Returns:
        The recipe, and the reason in a sentence.
    """
    recipes = list_recipes()
    flat = next(recipe for recipe in recipes if recipe.factory == "exact")
    for recipe in recipes:
        if recipe.min_rows is None or not recipe.min_rows <= rows < (recipe.max_rows or math.inf):
            continue
        size = f"{rows:,} vectors of dim {dim}"
        if recipe.factory != "exact" and not has_faiss:
            return flat, f"{size}: flat, since FAISS is not installed; pip install 'mmalign[cpu]' for {recipe.name}"
        return recipe, f"{size}: {recipe.name}, since {recipe.why}"
    return flat, f"no recipe is meant for {rows:,} vectors: flat, since it works at any size"


def chooses_exact(rows: int, dim: int) -> bool:
    """Whether `auto` holds exact search to be best, for which the vectors themselves are enough.

    Args:
        rows: How many vectors.
        dim: Their width.

    Returns:
        True where an index would gain nothing.
    """
    return choose_recipe(rows, dim, has_faiss=_has_faiss())[0].factory == "exact"


def build_index(
    recipe: str | Recipe,
    chunks: Chunks,
    *,
    rows: int,
    dim: int,
    advance: Callable[[int], None] | None = None,
    seed: int = 0,
) -> tuple[Index, str]:
    """Build an index in two passes over the data, one to draw the training sample and one to add.

    Args:
        recipe: A recipe, or what `load_recipe` takes, or `auto` to choose by size.
        chunks: Called once for each pass; yields `(ids, vectors)`, int64 of shape (n,) and float of shape (n, dim).
        rows: How many vectors there are.
        dim: Their width.
        advance: Called with the number of vectors after each chunk is added.
        seed: Of the training sample, which is drawn uniformly from all rows.

    Returns:
        The index, and the name of the recipe used. A named recipe that cannot be trained on so few rows gives an
        exact index.

    Raises:
        RecipeError: The recipe means nothing, or a factory string needs more training vectors than there are.
        MissingExtraError: It needs FAISS, which is not installed.
    """
    if recipe == "auto":
        recipe, _ = choose_recipe(rows, dim, has_faiss=_has_faiss())
    elif isinstance(recipe, str):
        recipe = load_recipe(recipe)
    index = _trained(recipe, chunks, rows=rows, dim=dim, seed=seed)
    for ids, vectors in chunks():
        index.add(ids, vectors)
        if advance is not None:
            advance(len(ids))
    return index, recipe.name


def _trained(recipe: Recipe, chunks: Chunks, *, rows: int, dim: int, seed: int) -> Index:
    if recipe.factory == "exact":
        return ExactIndex(dim)
    from mmalign.index.faiss import FaissIndex

    options = {} if recipe.k_factor is None else {"k_factor": recipe.k_factor}
    factory = recipe.resolve(rows=rows, dim=dim)
    index = FaissIndex(factory, dim, default_effort=recipe.default_effort, **options)
    if index.is_trained:
        return index
    if rows < index.least_training and recipe.name != recipe.factory:
        return ExactIndex(dim)
    size = min(rows, index.advised_training(recipe.vectors_per_centroid))
    index.train(sample_vectors(chunks, rows=rows, dim=dim, size=size, seed=seed))
    return index


def sample_vectors(chunks: Chunks, *, rows: int, dim: int, size: int, seed: int) -> Float32Array:
    """Draw vectors uniformly without replacement, in one pass.

    Args:
        chunks: As for `build_index`.
        rows: How many vectors there are.
        dim: Their width.
        size: How many to draw, at most `rows`.
        seed: Of the draw.

    Returns:
        Array of shape (size, dim), float32.
    """
    chosen = np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))
    sample = np.empty((size, dim), np.float32)
    start = filled = 0
    for ids, vectors in chunks():
        stop = int(np.searchsorted(chosen, start + len(ids)))
        sample[filled:stop] = vectors[chosen[filled:stop] - start]
        start, filled = start + len(ids), stop
    return sample[:filled]


def _has_faiss() -> bool:
    from mmalign.index.faiss import check_faiss

    try:
        check_faiss()
    except (MissingExtraError, EnvironmentConflictError):
        return False
    return True
