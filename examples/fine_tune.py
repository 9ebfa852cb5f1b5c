"""Fine-tune an encoder on a folder of your own: pictures with captions in text files beside them.

    python examples/fine_tune.py                      # on the gallery
    python examples/fine_tune.py ~/captioned-photos   # a.jpg with what it shows in a.txt, a caption a line

Trains an adapter behind `lite`: small layers on its embeddings, which learn in seconds, also without a graphics card.
Every third picture is kept out of the training, and measured on before and after.
"""

import json
import sys
from pathlib import Path

from mmalign import evaluate_retrieval
from mmalign.training import read_config, train_contrastive

GALLERY = Path(__file__).parent / "gallery"
# All settings, and open_clip models instead of an adapter: docs/training.md.
CONFIG = """
[data]
near_duplicates = 0     # else: keeps pictures out that look like a measured one; needs mmalign[lite1]
[model]
kind = "adapter"
encoder = "lite"
[optimization]
epochs = 6
batch_size = 64
learning_rate = 1e-3
warmup = 2
"""


def captioned(folder: Path) -> dict[str, list[str]]:
    found = {path: path.with_suffix(".txt") for path in sorted(folder.iterdir()) if path.suffix != ".txt"}
    return {str(path): text.read_text(encoding="utf-8").splitlines() for path, text in found.items() if text.is_file()}


def main() -> None:
    if len(sys.argv) > 1:
        out = Path("fine-tuned")
        captions = captioned(Path(sys.argv[1]).expanduser().resolve())
    else:
        out = Path("fine-tuned-gallery")
        rows = map(json.loads, (GALLERY / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
        captions = {str((GALLERY / row["image"]).resolve()): row["captions"] for row in rows}
    out.mkdir(exist_ok=True)
    manifest, config = out / "manifest.jsonl", out / "config.toml"
    splits = ("dev", "train", "train")
    lines = [{"image": path, "captions": captions[path], "split": splits[n % 3]} for n, path in enumerate(captions)]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    config.write_text(CONFIG, encoding="utf-8")

    report = train_contrastive(
        read_config(config, manifest=manifest),
        out / "run",
        # A record an epoch; a run that was stopped goes on where it was.
        log=lambda told: told["event"] == "epoch" and print(f"epoch {told['epoch']}: loss {told['loss']:.3f}"),
    )
    # The folder is an encoder like any other: Collection.create("mine.mm", encoder="adapter:fine-tuned/run/export").
    for name, encoder in (("before", "lite"), ("after", f"adapter:{report.exported}")):
        ranks = evaluate_retrieval(manifest, split="dev", encoder=encoder, progress=False).text_ranks
        print(f"{name}: {(ranks <= 5).mean():.1%} of {len(ranks)} captions find their picture among the first 5")


if __name__ == "__main__":
    main()
