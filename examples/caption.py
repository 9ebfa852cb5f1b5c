"""Describe a picture from the captions of pictures that are like it, and see what each word rests on.

python examples/caption.py
python examples/caption.py photo.jpg
"""

import sys
from pathlib import Path

from mmalign import Collection

GALLERY = Path(__file__).parent / "gallery"


def main() -> None:
    # The datastore is any collection with captions. Other captions give other words, without training; the few
    # hundred of the gallery, of drawings, are not many.
    gallery = Collection.open_or_create("gallery.mm")
    gallery.add(GALLERY / "manifest.jsonl", progress=False)

    # Captions of the picture itself are never used. ground=True looks for the caption's phrases in the picture.
    picture = sys.argv[1] if len(sys.argv) > 1 else GALLERY / "images" / "doctor.png"
    caption = gallery.caption(picture, ground=True)
    print(caption.text)

    for span in caption.spans:
        if span.kind == "word":
            # What was retrieved and holds this word: where a wrong word came from, and whether it came from anywhere.
            said = [caption.evidence[index].text for index in span.evidence[:2]]
            print(f"  {span.text}: {' | '.join(said) or 'in no retrieved caption'}")
        else:
            print(f"  {span.text}: {'not found in the picture' if span.region is None else 'found in the picture'}")

    # Without a decoder: the retrieved caption that the others agree with most.
    print("consensus:", gallery.caption(picture, mode="consensus").text)


if __name__ == "__main__":
    main()
