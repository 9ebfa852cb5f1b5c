"""The configuration file, and what it says where it is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmalign.errors import InputError, SourceError
from mmalign.training.captioner.config import read_captioner_config
from mmalign.training.contrastive.config import parse_config, read_config
from mmalign.training.contrastive.lite_model import LiteOptions
from mmalign.training.options import check_range, override, parse_options

EXAMPLE = """
[data]
manifest = "photos/manifest.jsonl"
texts = ["more.txt"]
views = ["plain", "flip", "crop-1"]

[[data.train]]
splits = ["train", "none"]

[[data.train]]
manifest = "/other/manifest.jsonl"
repeat = 0.5
field = "phrases"

[[data.held_out]]
splits = ["boxes"]

[model]
kind = "adapter"
encoder = "lite"

[loss]
teachers = ["runs/a"]
extra_texts = 64
temperature = 1

[optimization]
epochs = 3
betas = [0.9, 0.98]
"""


def test_a_file_becomes_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(EXAMPLE)
    config = read_config(tmp_path / "a.toml")
    photos = str(tmp_path / "photos/manifest.jsonl")
    assert [part.manifest for part in config.data.train] == [photos, "/other/manifest.jsonl"]
    assert (config.data.dev.manifest, config.data.dev.splits) == (photos, ("dev",))
    assert (config.data.train[1].repeat, config.data.train[1].field) == (0.5, "phrases")
    assert config.data.texts == (str(tmp_path / "more.txt"),)
    assert config.loss.teachers == (str(tmp_path / "runs/a"),)
    assert (config.loss.temperature, type(config.loss.temperature)) == (1.0, float)
    assert dict(config.model.options) == {"encoder": "lite"}
    assert config.optimization.batch_size == 256
    # What a run keeps of it gives the same again.
    assert parse_config(json.loads(json.dumps(config.to_dict()))) == config


def test_the_manifest_of_the_command_goes_before(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(EXAMPLE)
    config = read_config(tmp_path / "a.toml", manifest="/given/manifest.jsonl")
    assert config.data.train[0].manifest == config.data.dev.manifest == "/given/manifest.jsonl"
    assert config.data.train[1].manifest == "/other/manifest.jsonl"


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"optimisation": {}}, r"optimisation is not a known key; did you mean optimization\?"),
        ({"loss": {"lable_smoothing": 0.1}}, r"loss\.lable_smoothing is not a known key; did you mean label_smoothing"),
        ({"loss": {"x": 1}}, r"loss\.x is not a known key; the keys are kind, captions"),
        ({"loss": {"kind": "sigclip"}}, r"loss\.kind must be one of clip, siglip, got 'sigclip'; did you mean siglip"),
        ({"loss": {"extra_texts": 3}}, "extra_texts needs teachers"),
        ({"optimization": {"epochs": 2.5}}, r"optimization\.epochs must be a whole number, got 2\.5"),
        ({"optimization": {"epochs": True}}, r"optimization\.epochs must be a whole number, got True"),
        ({"optimization": {"epochs": -1}}, r"optimization\.epochs must be at least 0, got -1"),
        ({"optimization": {"learning_rate": "fast"}}, r"learning_rate must be a number, got 'fast'"),
        ({"optimization": {"betas": [0.9]}}, "betas must be two numbers"),
        ({"optimization": {"betas": 0.9}}, r"optimization\.betas must be a list, got 0\.9"),
        ({"data": {"train": [{"split": ["a"]}]}}, r"data\.train\[0\]\.split is not a known key; did you mean splits"),
        ({"data": {"train": []}}, "train must name at least one part"),
        ({"data": {"dev": "dev"}}, r"\[data\.dev\] must be a table, got 'dev'"),
        ({"data": {"views": ["flip"]}}, "views must begin with plain"),
        ({"data": {"views": ["plain", "zoom"]}}, "no view is called 'zoom'"),
        ({"data": {"views": ["crop-1"], "cached": False}}, "no view is called 'crop-1'; with data.cached = false"),
        ({"data": {"fuzzy_twins": 1.5}}, "fuzzy_twins must be at least 0 and at most 1, got 1.5"),
        ({"model": {}}, r"model\.kind is missing"),
        ({"model": 3}, r"\[model\] must be a table, got 3"),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        parse_config({"model": {"kind": "lite"}, **table})


def test_all_unknown_keys_are_named_at_once() -> None:
    with pytest.raises(InputError, match=r"epoch is not .*lr is not .*temprature is not"):
        parse_config({"model": {"kind": "lite"}, "optimization": {"epoch": 3, "lr": 0.1}, "loss": {"temprature": 0.1}})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.toml cannot be read"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_text("[data\n")
    with pytest.raises(SourceError, match="expected a TOML file"):
        read_config(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("[model]\nkind = 'lite'\n[loss]\ncaption = 2\n")
    with pytest.raises(InputError, match=r"a\.toml: loss\.caption is not a known key; did you mean captions"):
        read_config(tmp_path / "a.toml")


def test_values_on_top_leave_the_rest() -> None:
    table = {"epochs": 3, "data": {"text": ["a"], "dev": {"field": "phrases"}}}
    found = override(table, {"epochs": None, "data.text": ["b"], "data.dev": {"splits": ["x"]}, "loss.part.kind": "y"})
    assert found == {
        "epochs": 3, "data": {"text": ["b"], "dev": {"splits": ["x"]}}, "loss": {"part": {"kind": "y"}},
    }  # fmt: skip
    assert table == {"epochs": 3, "data": {"text": ["a"], "dev": {"field": "phrases"}}}
    with pytest.raises(InputError, match=r"\[data\] must be a table, got 3"):
        override({"data": 3}, {"data.manifest": "x"})


@pytest.mark.parametrize("command", [read_config, lambda path: read_captioner_config(path, options={}, data={})])
def test_data_that_is_no_table(tmp_path: Path, command: Any) -> None:
    (tmp_path / "a.toml").write_text("data = 3\n[model]\nkind = 'lite'\n")
    with pytest.raises(InputError, match=r"\[data\] must be a table, got 3"):
        command(tmp_path / "a.toml")


def test_ranges() -> None:
    for value in (1, 1.5, 2):
        check_range("x", value, least=1, most=2)
    for value, bounds in (
        (0.9, "at least 1 and at most 2"),
        (2.1, "at least 1 and at most 2"),
        (float("nan"), "at le"),
    ):
        with pytest.raises(InputError, match=f"x must be {bounds}"):
            check_range("x", value, least=1, most=2)
    with pytest.raises(InputError, match="x must be more than 0, got 0"):
        check_range("x", 0, least=0, above=True)


EXAMPLES = sorted((Path(__file__).parents[3] / "examples/training").glob("*.toml"))


@pytest.mark.parametrize("path", [path for path in EXAMPLES if "captioner" not in path.name])
def test_the_examples_configurations_are_valid(path: Path) -> None:
    config = read_config(path)
    assert path.name in path.read_text(encoding="utf-8")
    if config.model.kind == "lite":
        parse_options(LiteOptions, config.model.options, where="model")
