"""The commands that help to choose an index design before anything is built."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mmalign.cli.output import JsonOption, print_fact, print_json, print_table
from mmalign.errors import InputError

if TYPE_CHECKING:
    from mmalign.index import Candidate, IndexChoice, Recipe


def plan(
    n: Annotated[str, typer.Option("--n", "-n", help="How many vectors: 1_000_000, 100e6, 100M.")],
    dim: Annotated[str, typer.Option("--dim", "-d", help="Width of a vector; `mmalign models` lists it.")] = "512",
    memory: Annotated[
        str | None, typer.Option(help="Memory that building and searching may take: 32GB, 500MB, 4GiB.")
    ] = None,
    min_recall: Annotated[
        float, typer.Option(help="Share of the true nearest that has to be found, above 0, at most 1.")
    ] = 0.95,
    latency: Annotated[str | None, typer.Option(help="Time that one query may take: 5ms, 0.2s.")] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for a graphics card.")] = "cpu",
    queries: Annotated[
        bool,
        typer.Option(
            "--queries/--no-queries",
            help="Whether there is a sample of the queries that will be asked, as wherever words are searched with.",
        ),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Say what an index would take before it is built, which design suits the budgets, and why not the others.

    Bytes follow from the design; times are estimates for the number of processors here, from what one thread of
    another machine was measured to need for each step, and may be off by a factor of two or three. The recall told
    here was measured on other vectors (`mmalign bench index` measures it on yours); that of an index is measured when
    it is built: `mmalign doctor` tells.

    Without a budget the design that `mmalign index` would build is chosen; for vectors of your own, which no encoder
    makes, add `--no-queries`. Where memory is short, what candidates are compared again with may stay on disk, and at
    last the lists of vectors too.

    For example:

        mmalign plan --n 2e6 --dim 384

        mmalign plan --n 100e6 --dim 384 --memory 32GB --min-recall 0.95

        mmalign plan --n 10M --dim 512 --latency 5ms --json
    """
    from mmalign.index import choose, installed_budget
    from mmalign.utils import parse_bytes, parse_count, parse_seconds

    if device not in ("cpu", "cuda"):
        raise InputError(f"--device must be cpu or cuda, got {device!r}")
    budget = replace(
        installed_budget(),
        memory=None if memory is None else parse_bytes(memory),
        latency=None if latency is None else parse_seconds(latency),
        min_recall=min_recall,
        device="cuda" if device == "cuda" else "cpu",
        queries_known=queries,
    )
    choice = choose(parse_count(n), parse_count(dim), budget)
    if as_json:
        print_json(choice.to_dict())
    else:
        _print_choice(choice, threads=budget.threads)


def _print_choice(choice: IndexChoice, *, threads: int) -> None:
    from mmalign.index import load_costs
    from mmalign.utils import show_bytes, show_seconds

    found, best = choice.estimate, choice.candidates[0]
    latency = found.latency_on_disk if best.on_disk else found.latency
    searching = found.least_memory if best.on_disk else found.memory
    facts = {
        "recipe": f"{found.recipe}  ({found.factory})",
        "why": choice.reason,
        "bytes per vector": f"{found.bytes_per_vector:,.0f}, {show_bytes(found.disk)} on disk",
        "memory": f"{show_bytes(searching)} while searching, {show_bytes(found.build_memory)} while building"
        + (
            f" ({show_bytes(found.least_build_memory)} at least)"
            if found.least_build_memory < found.build_memory
            else ""
        ),
        "build": "not measured for this device"
        if found.build_seconds is None
        else f"about {show_seconds(found.build_seconds)} with {threads} threads",
        "query": "not measured for this device"
        if latency is None
        else f"about {show_seconds(latency)}" + (f" at effort {found.effort}" if found.effort else ""),
        "recall": "not measured for this design"
        if found.recall is None
        else f"{found.recall:.1%} of the nearest 10, measured on {' and on '.join(found.measured)}",
    }
    for name, value in facts.items():
        print_fact(name, value, column=19)
    print("\nthe others:")
    print_table(
        ["recipe", "bytes", "memory", "build", "query", "why not"], [_row(one) for one in choice.candidates[1:]]
    )
    costs = load_costs()
    print()
    print_fact("times:", f"measured on {costs.machine}, {costs.date},", column=7)
    print(f"       commit {costs.commit}")


def _row(one: Candidate) -> list[str]:
    from mmalign.utils import show_bytes, show_seconds

    found = one.estimate
    if found is None:
        return [one.recipe.name, "", "", "", "", one.refused]
    latency = found.latency_on_disk if one.on_disk else found.latency
    return [
        found.recipe,
        f"{found.bytes_per_vector:,.0f}",
        show_bytes(found.least_memory if one.on_disk else found.memory),
        "" if found.build_seconds is None else show_seconds(found.build_seconds),
        "" if latency is None else show_seconds(latency),
        one.refused,
    ]


def recipes(
    name: Annotated[str | None, typer.Argument(help="Tell all of one design: a name, a .toml file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List index designs: what each is for; with a NAME, all that it says and what was measured.

    For example:

        mmalign recipes

        mmalign recipes ivf-pq

        mmalign recipes my-design.toml --json
    """
    from mmalign.index import list_recipes, load_recipe

    if name is not None:
        recipe = load_recipe(name)
        if as_json:
            print_json(recipe.to_dict())
        else:
            _print_recipe(recipe)
        return
    found = list_recipes()
    if as_json:
        print_json([recipe.to_dict() for recipe in found])
        return
    print_table(
        ["recipe", "device", "factory", "summary"],
        [[recipe.name, recipe.device, recipe.factory, recipe.summary] for recipe in found],
    )


def _print_recipe(recipe: Recipe) -> None:
    for key, value in recipe.to_dict().items():
        if key != "measured" and value not in (None, "", []):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            print_fact(key.replace("_", " "), text, column=23)
    if recipe.measured:
        columns = list(dict.fromkeys(column for table in recipe.measured for column in table))
        print()
        print_table(columns, [[str(table.get(column, "")) for column in columns] for table in recipe.measured])
