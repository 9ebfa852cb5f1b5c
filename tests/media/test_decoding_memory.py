"""Memory for decoding: what is asked for beforehand is enough, and all threads together keep to it."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders import prefetch
from mmalign.encoders.prefetch import prefetch_batches
from mmalign.errors import DecodeError
from mmalign.media import decoding, images
from mmalign.media.decoding import decode_image
from mmalign.media.images import Picture, load_pictures
from mmalign.media.memory import MemoryBudget, Window, decoding_budget
from mmalign.media.nclx import named_profile
from mmalign.types import Skip
from tests.media.media_helpers import encode, png

WIDTH, HEIGHT = 3000, 2400
MEASURE = """
import re, sys
import PIL.ImageCms
from PIL import Image
from mmalign.media import decoding
from mmalign.media.memory import MemoryBudget
asked = []
class Watched(MemoryBudget):
    def reserve(self, amount):
        asked.append(amount)
        return super().reserve(amount)
budget = Watched(1 << 40)
decoding.decoding_budget = lambda: budget
kilobytes = lambda name: int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
for path in sys.argv[1:]:
    data = open(path, "rb").read()
    # Once for the modules that it loads; the second time counts.
    for _ in range(2):
        asked.clear()
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = kilobytes("VmRSS")
        decoded = decoding.decode_image(data)
        peak = kilobytes("VmHWM") - before
        del decoded
    print(peak * 1024, asked[0])
"""


def measured(files: dict[str, bytes], tmp_path: Path) -> dict[str, tuple[int, int]]:
    """Bytes that decoding took at the most, and bytes that it had asked for, of each file."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell how much memory a process took")
    paths = []
    for number, data in enumerate(files.values()):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(data)
    run = subprocess.run([sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, check=True)
    lines = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    return {name: (peak, asked) for name, (peak, asked) in zip(files, lines, strict=True)}


def large(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    values = np.kron(rng.integers(0, 256, (24, 30), dtype=np.uint8), np.ones((100, 100), np.uint8))
    deep = {"F": np.float32, "I;16": np.uint16}
    return Image.fromarray(values.astype(deep[mode])) if mode in deep else Image.fromarray(values).convert(mode)


def test_what_is_asked_for_is_enough(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    p3 = named_profile("PNG", png((1, 1), 8, 2, bytes(4), (b"cICP", bytes([12, 13, 0, 1]))))
    found = measured(
        {
            "JPEG": encode(large("RGB"), "JPEG"),
            "JPEG turned": encode(large("RGB"), "JPEG", exif=turned),
            "JPEG in P3": encode(large("RGB"), "JPEG", icc_profile=p3),
            "JPEG progressive": encode(large("RGB"), "JPEG", progressive=True, subsampling=0),
            "PNG": encode(large("RGBA"), "PNG"),
            "PNG of 16 bits": encode(large("I;16"), "PNG"),
            "TIFF of floats": encode(large("F"), "TIFF"),
            "TIFF compressed": encode(large("RGBA"), "TIFF", compression="tiff_lzw"),
            "WebP": encode(large("RGBA"), "WEBP", lossless=True, method=0),
            "AVIF": encode(large("RGB"), "AVIF", speed=10),
            "HEIC": encode(large("RGB"), "HEIF", quality=30),
            "JPEG 2000": encode(large("RGB"), "JPEG2000"),
            "GIF": encode(large("P"), "GIF"),
            "ICO": encode(large("RGBA").resize((256, 256)), "ICO", bitmap_format="bmp"),
            "QOI": encode(large("RGB").resize((1000, 800)), "QOI"),
        },
        tmp_path,
    )
    assert {name: peak / asked for name, (peak, asked) in found.items() if peak > asked} == {}


def test_deep_pictures_take_little_more_than_what_they_are(tmp_path: Path) -> None:
    deep = {"PNG of 16 bits": encode(large("I;16"), "PNG"), "TIFF of floats": encode(large("F"), "TIFF")}
    for name, (peak, _) in measured(deep, tmp_path).items():
        pixels = WIDTH * HEIGHT
        # What is stored, its grey of one byte, and a strip of four million pixels at work; then RGB of four bytes.
        most = pixels * {"PNG of 16 bits": 5, "TIFF of floats": 5}[name] + 24 * (1 << 22)
        assert peak <= most


def test_a_budget_is_kept_by_many_threads_some_of_which_fail() -> None:
    budget = MemoryBudget(1000)
    rng = random.Random(5)
    amounts = [rng.choice([1, 10, 300, 700, 5000]) for _ in range(400)]
    lock = threading.Lock()
    current: list[int] = []
    wrong: list[list[int]] = []

    def hold(number: int) -> None:
        with budget.reserve(amounts[number]):
            with lock:
                current.append(amounts[number])
                if sum(current) > 1000 and len(current) > 1:
                    wrong.append(list(current))
            time.sleep(0.0005)
            with lock:
                current.remove(amounts[number])
            if number % 3 == 0:
                raise LookupError(number)

    with ThreadPoolExecutor(16) as pool:
        failed = [type(future.exception()) for future in [pool.submit(hold, number) for number in range(400)]]
    assert failed.count(LookupError) == 134
    assert failed.count(type(None)) == 266
    assert wrong == []
    assert budget.used == 0


def test_a_budget_serves_in_the_order_of_asking() -> None:
    budget = MemoryBudget(100)
    order: list[int] = []
    threads = []

    def work(amount: int) -> None:
        with budget.reserve(amount):
            order.append(amount)

    with budget.reserve(60):
        for amount in (500, 30, 20):
            thread = threading.Thread(target=work, args=(amount,))
            thread.start()
            threads.append(thread)
            while len(budget._line) < len(threads):
                time.sleep(0.001)
        # Small ones would fit, and do not overtake: else the large one would never be alone.
        assert order == []
    for thread in threads:
        thread.join()
    assert order[0] == 500
    assert budget.used == 0


def test_the_budget_is_a_part_of_the_machine() -> None:
    assert 1 << 28 <= decoding_budget().limit <= 1 << 30
    assert decoding_budget() is decoding_budget()


def test_decoding_of_many_threads_keeps_to_the_budget(monkeypatch: pytest.MonkeyPatch, photo: Image.Image) -> None:
    budget = MemoryBudget(30 << 20)
    most = 0
    lock = threading.Lock()
    real = Image.Image.load

    def load(self: Image.Image) -> Any:
        nonlocal most
        with lock:
            most = max(most, budget.used)
        return real(self)

    monkeypatch.setattr(decoding, "decoding_budget", lambda: budget)
    monkeypatch.setattr(Image.Image, "load", load)
    good = [encode(photo, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF")]
    files = [data for whole in good for data in (whole, whole[:-60])] * 10

    def attempt(data: bytes) -> bool:
        try:
            return decode_image(data).image.size == (96, 64)
        except DecodeError:
            return False

    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(attempt, files))
    assert sum(done) >= 50
    assert not all(done)
    assert 0 < most <= 30 << 20
    assert budget.used == 0


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> MemoryBudget:
    budget = MemoryBudget(3 << 20)
    for module in (decoding, images, prefetch):
        monkeypatch.setattr(module, "decoding_budget", lambda: budget)
    return budget


def test_pictures_that_wait_to_be_taken_count(
    tmp_path: Path, small_budget: MemoryBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    for number in range(24):
        path = tmp_path / f"{number}.png"
        # A megabyte each once decoded; one is larger than all that may wait, one is damaged, one is missing.
        side = 1200 if number == 7 else 512
        path.write_bytes(encode(Image.new("RGB", (side, 512), (number, 0, 0)), "PNG")[: 300 if number == 11 else None])
        paths.append(str(path))
    (tmp_path / "13.png").unlink()
    held: dict[int, int] = {}
    most = 0
    real = Window.settle

    def settle(self: Window, position: int, amount: int) -> None:
        nonlocal most
        real(self, position, amount)
        held[position] = amount
        most = max(most, sum(size for number, size in held.items() if number > self._next))

    monkeypatch.setattr(Window, "settle", settle)
    loaded = load_pictures(paths, workers=8, ahead=20)
    for number, picture in enumerate(loaded):
        if number == 0:
            time.sleep(0.5)
        if number in {11, 13}:
            assert isinstance(picture, Skip)
            continue
        assert isinstance(picture, Picture)
        assert picture.image is not None
        assert picture.image.getpixel((0, 0)) == (number, 0, 0)
    assert 0 < most <= 3 << 20


def test_closing_wakes_those_who_wait_for_room(tmp_path: Path, small_budget: MemoryBudget) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.new("RGB", (900, 900)), "PNG"))
    loaded = load_pictures([str(path)] * 30, workers=6, ahead=20)
    assert isinstance(next(loaded), Picture)
    loaded.close()
    assert [thread for thread in threading.enumerate() if thread.name == "mmalign-load"] == []


def test_large_pictures_are_prefetched_a_few_at_a_time(small_budget: MemoryBudget) -> None:
    alive = 0
    most = 0
    lock = threading.Lock()

    def pictures() -> Any:
        nonlocal alive, most
        for number in range(40):
            with lock:
                alive += 1
                most = max(most, alive)
            # A megabyte each.
            yield Image.new("RGB", (512, 512), (number, 0, 0))

    def shrink(image: Image.Image) -> int:
        nonlocal alive
        with lock:
            alive -= 1
        return int(image.getpixel((0, 0))[0])  # type: ignore[index]

    batches = list(prefetch_batches(pictures(), shrink, batch_size=8, workers=1))
    assert [number for batch in batches for number in batch] == list(range(40))
    # Without a budget 24 are taken at once.
    assert most <= 6


def test_large_results_make_short_batches(small_budget: MemoryBudget) -> None:
    def enlarge(number: int) -> Image.Image:
        return Image.new("RGB", (512, 512), (number, 0, 0))

    batches = list(prefetch_batches(range(30), enlarge, batch_size=16, workers=4))
    assert [image.getpixel((0, 0))[0] for batch in batches for image in batch] == list(range(30))  # type: ignore[index]
    assert max(map(len, batches)) <= 4
    small = list(prefetch_batches(range(30), lambda number: Image.new("L", (8, 8), number), batch_size=16, workers=4))
    assert list(map(len, small)) == [16, 14]


def test_a_failure_among_large_pictures_comes_in_its_place(small_budget: MemoryBudget) -> None:
    def enlarge(number: int) -> Image.Image:
        if number == 9:
            raise LookupError("nine")
        return Image.new("RGB", (512, 512))

    seen: list[int] = []

    def consume() -> None:
        seen.extend(map(len, prefetch_batches(range(30), enlarge, batch_size=4, workers=3)))

    with pytest.raises(LookupError, match="nine"):
        consume()
    assert sum(seen) == 9
    assert [thread for thread in threading.enumerate() if thread.name.startswith("mmalign-prefetch")] == []
