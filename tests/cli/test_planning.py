"""`mmalign plan` and `mmalign recipes`: what they print, and how they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mmalign.index.planning.choose import choose, installed_budget
from mmalign.index.planning.recipe import list_recipes
from tests.cli.conftest import Run


def test_plan_says_what_is_chosen_why_and_why_not_the_others(run: Run) -> None:
    code, out, err = run("plan", "--n", "100e6", "--dim", "384", "--memory", "32GB", "--min-recall", "0.95")
    assert (code, err) == (0, "")
    for told in ("recipe ", "why ", "bytes per vector", "while searching", "while building", "build ", "query "):
        assert told in out
    for recipe in list_recipes():
        assert recipe.name in out
    assert "searching takes 105 GB of memory" in out
    assert "commit" in out.splitlines()[-1]


@pytest.mark.parametrize(("options", "known", "recipe"), [([], True, "lean"), (["--no-queries"], False, "ivf-pq")])
def test_plan_as_json_is_the_choice(run: Run, options: list[str], known: bool, recipe: str) -> None:
    """What `index` chooses: where there is an encoder, there are queries to learn from."""
    code, out, _ = run("plan", "-n", "2_000_000", "-d", "256", "--json", *options)
    assert code == 0
    budget = replace(installed_budget(), queries_known=known)
    assert json.loads(out) == json.loads(json.dumps(choose(2_000_000, 256, budget).to_dict()))
    assert json.loads(out)["recipe"] == recipe


def test_plan_for_a_graphics_card_gives_no_times(run: Run) -> None:
    code, out, _ = run("plan", "--n", "1M", "--device", "cuda")
    assert code == 0
    assert "not measured for this device" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n", "many"], "expected a number such as 1_000_000, 100e6 or 100M, got 'many'"),
        (["--n", "1.5"], "expected a whole number, got '1.5'"),
        (["--n", "1e6", "--dim", "0"], "dim of at least 1"),
        (["--n", "1e6", "--memory", "lots"], "expected a size such as 32GB"),
        (["--n", "1e6", "--memory", "1MB"], "the smallest budget that works is "),
        (["--n", "1e6", "--latency", "fast"], "expected a time such as 5ms"),
        (["--n", "1e6", "--latency", "1ns"], "expected a time such as 5ms"),
        (["--n", "1e6", "--latency", "0.001us"], "ask for less recall, or allow more time or memory"),
        (["--n", "1e6", "--min-recall", "2"], "min_recall must be above 0 and at most 1, got 2.0"),
        (["--n", "1e6", "--device", "tpu"], "--device must be cpu or cuda, got 'tpu'"),
    ],
)
def test_plan_refuses_with_a_remedy(run: Run, words: list[str], message: str) -> None:
    code, out, err = run("plan", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_recipes(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("recipes")
    assert code == 0
    assert all(recipe.name in out and recipe.device in out for recipe in list_recipes())
    code, out, _ = run("recipes", "ivf-pq")
    assert code == 0
    assert "IVF{nlist},PQ{m}x4fs,Refine(SQfp16)" in out
    assert "min share" in out
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'name = "mine"\nsummary = "x"\nfactory = "SQ8"\n[[measured]]\ndata = "d"\nrecall = [0.5]\n',
        encoding="utf-8",
    )
    code, out, _ = run("recipes", str(mine), "--json")
    assert json.loads(out)["measured"] == [{"data": "d", "recall": [0.5]}]
    _, out, _ = run("recipes", str(mine))
    assert "[0.5]" in out
    code, _, err = run("recipes", "hnws")
    assert code == 2
    assert "did you mean hnsw" in err
