"""The page of the demonstration: hits, words in pictures, and captions with what each word rests on."""

from __future__ import annotations

from collections.abc import Mapping

from mmalign.cli.aligning import in_words
from mmalign.cli.demo_results import COMPOSED, DemoAlignment, DemoCaption, Demonstration
from mmalign.cli.page import document, hit_cards, picture_element, result_section
from mmalign.media import thumbnail
from mmalign.types import Caption, CaptionSpan, Html, element, joined

# A word names so many of the retrieved captions that hold it.
_CITED = 3
# Longest sides in pixels.
_PICTURE, _SMALL = 520, 112
# Larger than any picture: boxes are in its own pixels.
_WHOLE = 1 << 16


def demo_page(found: Demonstration) -> bytes:
    """Write the page.

    Args:
        found: What the demonstration found.

    Returns:
        The page, in UTF-8, with all of its pictures.
    """
    info = found.collection.info()
    steps = ", ".join(f"{name} {value:.1f} s" for name, value in found.seconds.items())
    return document(
        "mmalign: the demonstration",
        element("h1", "What mmalign does"),
        element(
            "p",
            f"Three things with the {len(found.collection):,} pictures of the gallery that comes with it, computed on "
            f"this machine just now with the encoder {info['encoder']}: ",
            f"{steps}. Most of the gallery is drawings. Mistakes are left in: a small model makes them.",
            class_="lead",
        ),
        element(
            "nav",
            *(
                element("a", text, href=f"#{name}")
                for name, text in (("search", "Search"), ("align", "Which words are where"), ("caption", "Captions"))
            ),
        ),
        element("h2", "Search", id="search"),
        element(
            "p",
            "Pictures are found by what they show; no caption and no name of a file is looked at. The first number is "
            "the cosine of query and picture, the second how likely the picture is the one described.",
        ),
        *map(result_section, found.results),
        _composed(found),
        element("h2", "Which words are where", id="align"),
        element(
            "p",
            "All phrases of a sentence are placed together: a place is not given twice, and what the sentence says of "
            "places counts. What is not found is said to be not found, rightly or wrongly.",
        ),
        element("div", *map(_aligned, found.aligned), class_="pair"),
        element("h2", "Captions with their evidence", id="caption"),
        element(
            "p",
            "Each picture is described from the captions of the others; its own are not used. ",
            element("mark", "A word"),
            " names the retrieved captions that hold it; ",
            element("mark", "a word", class_="without"),
            " is held by none. So a wrong word tells where it came from. These are among the better ones: the gallery "
            "has few captions, and they are of drawings.",
        ),
        *(_captioned(number, each, found.places()) for number, each in enumerate(found.captioned, 1)),
        element(
            "footer",
            "Pictures: authors and licences are in ATTRIBUTION.md of the gallery. The collection is ",
            element("code", str(found.collection.path)),
            "; ask it more, such as ",
            element("code", f'mmalign search "a castle" --collection {found.collection.path}'),
            ".",
        ),
    )


def _composed(found: Demonstration) -> Html:
    return element(
        "section",
        element("h3", f"the picture {COMPOSED[0]} + {COMPOSED[1]}"),
        element("p", "A query may join pictures and words, with weights, and take some away.", class_="note"),
        hit_cards(found.composed),
    )


def _aligned(each: DemoAlignment) -> Html:
    found = each.alignment
    rows = []
    for index, phrase in enumerate(found.phrases):
        links = [link for link in found.links if link.phrase == index]
        where = ", ".join(in_words(found.regions[link.region].box, each.picture.size) for link in links)
        likely = ", ".join(f"{found.probability(link):.0%}" for link in links)
        rows.append(_row("td", str(index + 1), phrase.text, where or "not found", likely))
    why = [element("p", f"{index + 1}. {found.explain(index).text}") for index in range(len(found.phrases))]
    return element(
        "section",
        element("h3", found.sentence),
        element("figure", picture_element(found.draw(each.picture), f"{found.sentence}: boxes and heat")),
        element("table", _row("th", "", "phrase", "where", "probability"), *rows),
        *(element("p", str(note), class_="note") for note in found.notes),
        element("details", element("summary", "Why"), *why),
    )


def _row(kind: str, *cells: str) -> Html:
    return element("tr", *(element(kind, cell) for cell in cells))


def _captioned(number: int, each: DemoCaption, places: Mapping[str, str]) -> Html:
    caption = each.caption
    cited = _cited(caption)
    evidence = []
    for index, shown in cited.items():
        entry = caption.evidence[index]
        uri = places.get(entry.source)
        picture = picture_element(thumbnail(uri, size=_SMALL), "") if uri else element("span")
        evidence.append(
            element(
                "li",
                element("span", str(shown), class_="number"),
                picture,
                element("span", entry.text, element("span", f" {entry.score:.2f}", class_="faint")),
                id=f"evidence-{number}-{shown}",
            )
        )
    whole = thumbnail(each.uri, size=_WHOLE)
    size = None if whole is None else whole.size
    phrases = [_row("td", span.text, _place(span, size)) for span in caption.spans if span.kind == "phrase"]
    return element(
        "section",
        element(
            "div",
            picture_element(thumbnail(each.uri, size=_PICTURE), caption.text),
            element(
                "div",
                element("p", *_words(caption, number, cited), class_="caption"),
                *(
                    [
                        element(
                            "table",
                            _row("th", "phrase", "where it was found in the picture, and how probably it is there"),
                            *phrases,
                        )
                    ]
                    if phrases
                    else []
                ),
                element(
                    "p",
                    f"What its words rest on, at most {_CITED} captions each, with picture and cosine:",
                ),
                element("ol", *evidence, class_="evidence"),
                *(element("p", str(note), class_="note") for note in caption.notes),
            ),
            class_="written",
        ),
    )


def _place(span: CaptionSpan, size: tuple[int, int] | None) -> str:
    if span.region is None:
        return "not found"
    where = "found" if size is None else in_words(span.region.box, size)
    return where if span.probability is None else f"{where}, {span.probability:.0%}"


def _cited(caption: Caption) -> dict[int, int]:
    """The retrieved captions that are shown, by index, with their numbers, from 1 as words name them."""
    found: dict[int, int] = {}
    for span in caption.spans:
        for index in span.evidence[:_CITED] if span.kind == "word" else ():
            found.setdefault(index, len(found) + 1)
    return found


def _words(caption: Caption, number: int, cited: Mapping[int, int]) -> list[str | Html]:
    """The caption, its content words marked, with links to what they rest on."""
    parts: list[str | Html] = []
    at = 0
    for span in caption.spans:
        if span.kind != "word":
            continue
        links = [
            element("a", str(cited[index]), href=f"#evidence-{number}-{cited[index]}")
            for index in span.evidence[:_CITED]
        ]
        word = element("mark", span.text, class_=None if links else "without")
        notes = [element("sup", joined(links, " "))] if links else []
        parts += [caption.text[at : span.start], element("span", word, *notes, class_="cited")]
        at = span.end
    return [*parts, caption.text[at:]]
