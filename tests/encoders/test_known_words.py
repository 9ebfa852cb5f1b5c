"""Which words `lite` knows: emoji, other scripts and nonsense it does not; real words it does, rare ones included."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

from mmalign.encoders.base import KnowsWords
from mmalign.encoders.lite.v2 import Lite2Encoder


@pytest.fixture(scope="module")
def lite() -> Lite2Encoder:
    return Lite2Encoder()


NOTHING = [
    "\U0001f600", "\U0001f984\U0001f984", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "собака", "犬",
    "две собаки в снегу", "狗在自行车旁边", "いぬ", "ελληνικά", "שלום", "مرحبا", "हाथी", "개",
    "asdkjfh qwepoiu zxcvmn", "asdkfjhaslkdjfh", "qwrtp", "xkjqz vbnmtr wqpzx", "\u200b", "!!!", "...", "\ud83d",
    "\uff44\uff4f\uff47", "x" * 300,
]  # fmt: skip
KNOWN = [
    "dog", "a dog", "naïve café", "Kraków", "tuxedo", "kiosk", "zigzag", "igloo", "alpaca", "xylophone", "20º",
    "dachshund schnauzer rottweiler", "Zlatan Ibrahimović", "Nguyen", "BMW", "NASA", "IMG_2034", "4x4", "1234567",
    "t-shirt", "rock'n'roll", "ein Hund im Schnee", "deux chiens dans la neige", "hippopotamus", "quetzalcoatl", "a",
    "ox", "Mississippi", "Czech",
]  # fmt: skip


@pytest.mark.parametrize("text", NOTHING, ids=ascii)
def test_nothing_is_known(lite: Lite2Encoder, text: str) -> None:
    assert isinstance(lite, KnowsWords)
    assert lite.knows(text).nothing


@pytest.mark.parametrize("text", KNOWN, ids=ascii)
def test_all_is_known(lite: Lite2Encoder, text: str) -> None:
    found = lite.knows(text)
    assert (found.unknown, found.nothing) == ((), False)


def test_what_is_unknown_beside_what_is_known(lite: Lite2Encoder) -> None:
    assert lite.knows("a dog \U0001f436 and собака, 犬").unknown == ("\U0001f436", "собака", "犬")
    assert lite.knows("dog dog \U0001f436 \U0001f436").unknown == ("\U0001f436",)
    assert not lite.knows("dog \U0001f436").nothing


def test_texts_of_which_nothing_is_known_have_one_embedding(lite: Lite2Encoder) -> None:
    """Why it matters."""
    rows = lite.encode_text(["\U0001f600", "\U0001f984", "\U0001f355"])
    assert (rows @ rows.T).min() > 0.999


def test_nonsense_is_noticed_more_often_than_not(lite: Lite2Encoder) -> None:
    rng = random.Random(3)
    letters = "abcdefghijklmnopqrstuvwxyz"

    def texts(count: int) -> list[str]:
        words = ["".join(rng.choices(letters, k=rng.randint(5, 10))) for _ in range(count * 500)]
        return [" ".join(words[i::500]) for i in range(500)]

    noticed = [np.mean([lite.knows(text).nothing for text in texts(count)]) for count in (1, 2, 3)]
    assert noticed[0] > 0.4
    assert min(noticed[1:]) > 0.75


def test_captions_are_known(lite: Lite2Encoder, shared: Path) -> None:
    files = sorted((shared / "data" / "text").glob("*.txt"))
    lines = [line.strip() for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    chosen = random.Random(0).sample(lines, 20_000)
    assert sum(lite.knows(line).nothing for line in chosen) == 0
    assert sum(bool(lite.knows(line).unknown) for line in chosen) <= 2
    words = sorted({word for line in chosen for word in re.findall(r"[a-z]+", line.lower())})
    # By themselves, too: slips of the pen alone, such as `girsl`.
    assert sum(lite.knows(word).nothing for word in words) <= 0.0005 * len(words)
