"""Search with pictures and words together, and among some of the pictures.

python examples/composed_search.py
"""

from pathlib import Path

from mmalign import Collection, Query

GALLERY = Path(__file__).parent / "gallery"


def show(title: str, hits: list[str]) -> None:
    print(f"{title}: {', '.join(Path(uri).stem for uri in hits)}")


def main() -> None:
    gallery = Collection.open_or_create("gallery.mm")
    gallery.add(GALLERY / "manifest.jsonl", progress=False)

    # A query may join pictures and words; a weight says how much each counts, a minus what the picture should not be.
    # On the command line it is written "horse.png + 0.8:a rider - a dog".
    horse = Query.picture(GALLERY / "images" / "galloping-horse.png")
    found = gallery.search(horse + 0.8 * Query("a rider") - 0.3 * Query("a dog"), k=3)
    show("like this horse, with a rider and less of a dog", [hit.uri for hit in found])

    # A filter is SQL over what is known of each picture; docs/filters.md says all that it may hold.
    found = gallery.search("an animal", k=3, where="licence = 'CC BY-SA 4.0' AND width >= height")
    show("animals under CC BY-SA that are not upright", [hit.uri for hit in found])

    # Columns of your own come with `update`, and may be asked for at once.
    gallery.update([hit.id for hit in found], {"stars": 5})
    starred = gallery.search("a long neck", k=10, where="stars = 5")
    show("of these, by 'a long neck'", [hit.uri for hit in starred])

    # Several queries in one go are faster than one after the other.
    for result in gallery.search(["flowers", "something to eat"], k=3):
        show(result.query, [hit.uri for hit in result])


if __name__ == "__main__":
    main()
