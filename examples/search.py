"""Search pictures with words.

    python examples/search.py
    python examples/search.py "a castle"

Makes a collection of the gallery beside this file in the folder where you are, `gallery.mm`, and searches it. The
second run finds the collection there and encodes nothing.
"""

import sys
from pathlib import Path

from mmalign import Collection

GALLERY = Path(__file__).parent / "gallery"


def main() -> None:
    # A collection is a folder: places, captions and embeddings of pictures, which stay where they are.
    gallery = Collection.open_or_create("gallery.mm")

    # A folder of pictures would do as well: gallery.add("~/photos"). What is known already is left as it is.
    report = gallery.add(GALLERY / "manifest.jsonl", progress=False)
    print(f"{report.added} pictures added, {report.unchanged} known already, {len(report.skipped)} left out")

    # Pictures are found by what they show: no caption and no name of a file is looked at.
    found = gallery.search(sys.argv[1] if len(sys.argv) > 1 else "a red car", k=3)
    print(f"{found.query}:")
    for hit in found:
        # The score is a cosine; the probability says how likely this is the picture that the words describe.
        print(f"  {hit.score:.3f}  {hit.probability:4.0%}  {Path(hit.uri).name}")

    # What is not there should not be found: leave out what is improbable, perhaps all.
    nothing = gallery.search("a submarine under the ice", k=3, min_probability=0.5)
    print(f"{nothing.query}: {len(nothing)} hits; {nothing.notes[0]}")


if __name__ == "__main__":
    main()
