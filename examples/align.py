"""See which words of a sentence are where in a picture.

    python examples/align.py
    python examples/align.py photo.jpg "a dog left of a red bicycle"

Prints where each phrase was found, and draws it all into `aligned.png`.
"""

import sys
from pathlib import Path

from PIL import Image

from mmalign import align

PORTRAIT = Path(__file__).parent / "gallery" / "images" / "astronaut-photo.jpg"


def main() -> None:
    picture, sentence = sys.argv[1:3] if len(sys.argv) > 2 else (str(PORTRAIT), "a smiling woman in an orange suit")

    # The sentence is taken apart into phrases, and all of them are placed together: what it says of places counts.
    # For many pictures keep an `Aligner`, which loads its models once. parser="rules" needs no further package.
    found = align(picture, sentence, parser="rules")

    for link in found.links:
        x, y, width, height = (round(side) for side in found.regions[link.region].box.to_list())
        phrase = found.phrases[link.phrase].text
        print(f"{phrase}: {width} x {height} pixels at ({x}, {y}), {found.probability(link):.0%}")
    for index in found.unmatched_phrases:
        print(f"{found.phrases[index].text}: not found")

    # Every decision can be explained, in terms that add up to what was maximised.
    if found.phrases:
        print(found.explain(0).text)

    with Image.open(picture) as opened:
        found.draw(opened).save("aligned.png")
    print("drawn: aligned.png")


if __name__ == "__main__":
    main()
