"""Index recipes: what to build, read from TOML files and chosen by size."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from mmalign.errors import EnvironmentConflictError, MissingExtraError, RecipeError
from mmalign.index.base import FilterSupport
from mmalign.types import field_values

_PACKAGE = "mmalign.recipes"
_GRAPH = re.compile(r"(?:^|,)HNSW")
# Parts that scale vectors to length 1.
_SCALING = re.compile(r"(?:^|,)(L2[nN]orm|ITQ\d*)(?=,|$)")
_PER_CENTROID = 64
# Lists get at least this many vectors each; FAISS warns below.
_ROWS_PER_LIST = 39
# Numbers of codes of a byte that a graphics card takes without cuVS (`IVFPQ::isSupportedPQCodeLength` of FAISS).
_GPU_CODES = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
# How alike a name is to one that may be meant, 0 to 1; among names as short as these, less is chance.
_NEAR = 0.65
Device: TypeAlias = Literal["cpu", "cuda"]
Storage: TypeAlias = Literal["memory", "disk"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One index design.

    Attributes:
        name: How it is asked for.
        summary: What it is, in a sentence.
        backend: What builds it: `exact`, `faiss`, or another one that was registered; see `register_backend`.
        factory: `exact`, or a FAISS factory string with placeholders for what fits the data; see `resolve`.
        metric: Always `inner_product`.
        device: `cpu`, or `cuda` for a graphics card.
        storage: Where the inverted lists lie while it is searched: `memory`, or `disk`, from where they are mapped.
        query_aware: Whether it is built with a sample of the queries that will be asked.
        reduced: Width that {reduced} stands for, where the vectors are wider.
        min_rows: `auto` takes it from this many rows on; None for never.
        max_rows: `auto` takes it below this many rows; None for no bound.
        why: Why it suits that size.
        vectors_per_centroid: Training sample, in vectors for each list or code.
        ef_construction: How many candidates a graph (HNSW) looks at for the neighbours of each vector as it is built;
            None for FAISS's own, 40.
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
    backend: str = "faiss"
    metric: str = "inner_product"
    device: Device = "cpu"
    storage: Storage = "memory"
    query_aware: bool = False
    reduced: int | None = None
    min_rows: int | None = None
    max_rows: int | None = None
    why: str = ""
    vectors_per_centroid: int = _PER_CENTROID
    ef_construction: int | None = None
    effort: str | None = None
    default_effort: int | None = None
    effort_choices: tuple[int, ...] = ()
    k_factor: int | None = None
    filter_support: FilterSupport | None = None
    min_share: float | None = None
    measured: tuple[Mapping[str, Any], ...] = field(default=())

    def resolve(self, *, rows: int, dim: int) -> str:
        """Return the factory string for some data.

        {dim} is their width; {nlist} the number of lists, 4 * sqrt(rows) and no more than one for every 39 rows; {m},
        {m4} and {m8} numbers of codes: half, a quarter and an eighth of the width, or the next divisor of it below;
        {m8_gpu} the same as {m8}, or the next divisor below that graphics cards take without cuVS, 96 at most;
        {reduced} the recipe's `reduced`, or the width where that is smaller.

        Args:
            rows: How many vectors.
            dim: Their width.

        Returns:
            The factory string, with nothing left to fill in.

        Raises:
            RecipeError: It has a placeholder that means nothing, or {reduced} and no `reduced`.
        """
        known = {
            "nlist": max(1, min(round(4 * math.sqrt(rows)), rows // _ROWS_PER_LIST)),
            "m": dim // 2 if dim % 2 == 0 else dim,
            "m4": _divisor(dim, dim // 4),
            "m8": _divisor(dim, dim // 8),
            "m8_gpu": max(codes for codes in _GPU_CODES if codes <= max(1, dim // 8) and dim % codes == 0),
            "dim": dim,
        }
        if self.reduced is not None:
            known["reduced"] = min(self.reduced, dim)
        try:
            return self.factory.format(**known)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            names = ", ".join(f"{{{name}}}" for name in known)
            more = "" if "reduced" in known else " ({reduced} needs a line reduced = WIDTH beside it)"
            raise RecipeError(
                f"recipe {self.name}: factory {self.factory!r} may hold {names} and no other braces{more}"
            ) from error

    @property
    def has_graph(self) -> bool:
        """Whether its factory string has a graph over the vectors; one over the centres of lists does not count."""
        return _GRAPH.search(self.factory) is not None

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
        RecipeError: Not TOML, a key missing or unknown, a metric or device that is not served, or an `ef_construction`
            where no graph is built by FAISS on a processor.
    """
    try:
        values = tomllib.loads(text)
        if values.get("factory") == "exact":
            values.setdefault("backend", "exact")
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
    _check(recipe, origin=origin)
    return recipe


def _check(recipe: Recipe, *, origin: str) -> None:
    """Refuse values that a recipe may not have: TOML has types, and a text for a number would fail much later."""
    choices = {"metric": ("inner_product",), "device": get_args(Device), "storage": get_args(Storage)}
    values = field_values(recipe)
    for name, allowed in choices.items():
        if values[name] not in allowed:
            raise RecipeError(f"{origin}: {name} must be {' or '.join(allowed)}, got {values[name]!r}")
    for name in ("name", "summary", "factory", "backend"):
        if not isinstance(values[name], str) or not values[name]:
            raise RecipeError(f"{origin}: {name} must be a text that is not empty, got {values[name]!r}")
    if not isinstance(recipe.query_aware, bool):
        raise RecipeError(f"{origin}: query_aware must be true or false, got {recipe.query_aware!r}")
    names = ("reduced", "vectors_per_centroid", "ef_construction", "default_effort", "k_factor")
    numbers = {name: values[name] for name in names}
    numbers |= {f"choices[{place}]": effort for place, effort in enumerate(recipe.effort_choices)}
    for name, value in numbers.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise RecipeError(f"{origin}: {name} must be a whole number of at least 1, got {value!r}")
    # What graphs another engine builds, it alone knows.
    if recipe.ef_construction is not None and recipe.backend in ("exact", "faiss"):
        check_ef_construction(recipe, origin=origin)


def check_ef_construction(recipe: Recipe, *, origin: str, device: str | None = None) -> None:
    """Refuse `ef_construction` where FAISS builds no graph that goes by it.

    Args:
        recipe: The design.
        origin: Where it came from, for the error's text.
        device: Where it is built; None for what the recipe says.

    Raises:
        RecipeError: It has none, or a graphics card builds it.
    """
    if recipe.ef_construction is None:
        return
    if not recipe.has_graph:
        raise RecipeError(
            f"{origin}: ef_construction = {recipe.ef_construction} is for graphs, and factory {recipe.factory!r} "
            "builds none; leave it out, or use a factory with a graph over the vectors, such as HNSW32,SQfp16"
        )
    if (device or recipe.device) == "cuda":
        raise RecipeError(
            f"{origin}: ef_construction = {recipe.ef_construction} is for graphs that a processor builds, and a "
            "graphics card builds this one in another way; leave it out, or build it with device cpu"
        )


def check_any_length(recipe: Recipe) -> None:
    """Refuse a design that scales vectors to length 1, for vectors whose lengths count.

    Args:
        recipe: The design.

    Raises:
        RecipeError: A part of it does.
    """
    found = _SCALING.search(recipe.factory)
    if found is not None:
        raise RecipeError(
            f"recipe {recipe.name}: {found[1]} scales vectors to length 1, and this collection goes by the inner "
            "products of vectors of any length; leave that part out, or use one of the recipes that `mmalign recipes` "
            "lists, none of which scales any"
        )


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
        raise RecipeError("auto is chosen for the data: use build_index or `mmalign plan`")
    if spec.endswith(".toml"):
        try:
            text = Path(spec).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"recipe file {spec} cannot be read: {error}") from error
        return parse_recipe(text, origin=spec)
    if spec == "exact":
        return recipes["flat"]
    names = [*recipes, "auto"]
    near = difflib.get_close_matches(spec.lower(), names, n=3, cutoff=_NEAR)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"the recipes are {', '.join(names)}."
    if not spec or spec[0].islower():
        # FAISS's factory strings begin with a capital, recipes do not; this needs no FAISS to say so.
        raise RecipeError(f"unknown index recipe {spec!r}; {remedy} Any FAISS factory string works too, such as SQ8")
    from mmalign.index.faiss.index import FaissIndex

    try:
        # A width with many divisors, so that only what is wrong with the string itself is found here.
        FaissIndex(spec, 5040)
    except RecipeError as error:
        raise RecipeError(f"unknown index recipe {spec!r}; {remedy} Nor is it for FAISS: {error}") from error
    return Recipe(name=spec, summary="FAISS factory string", factory=spec)


def _divisor(dim: int, most: int) -> int:
    """The largest divisor of a width that is not above `most`; 1 at least."""
    return next((part for part in range(most, 1, -1) if dim % part == 0), 1)


def has_faiss_installed() -> bool:
    """Whether FAISS is there to build with."""
    from mmalign.index.faiss.library import check_faiss

    try:
        check_faiss()
    except (MissingExtraError, EnvironmentConflictError):
        return False
    return True
