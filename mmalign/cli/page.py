"""HTML pages that carry all that they show: elements whose texts are escaped, pictures as data, the cards of hits.

Contact sheets and the page of the demonstration are made of these. Nothing is loaded from elsewhere and nothing is
run: pages work without a network, in any browser, and may be sent as one file.
"""

from __future__ import annotations

from PIL import Image

from mmalign.media import as_jpeg, thumbnail
from mmalign.types import Hit, Html, SearchResult, element, jpeg_uri

# Longest side of a picture on a page: twice as many pixels as it is wide there, for sharp displays.
_CARD = 400
_QUERY = 400


def picture_element(picture: Image.Image | None, description: str, **attributes: str | None) -> Html:
    """A picture that the page carries within.

    Args:
        picture: Mode RGB; None for one that cannot be read any more.
        description: What it shows, for those who do not see it.
        attributes: As for `element`.

    Returns:
        An `img`, or a `p` that says that there is none.
    """
    if picture is None:
        return element("p", "cannot be read any more", class_="gone")
    data = jpeg_uri(as_jpeg(picture))
    size = {"width": str(picture.width), "height": str(picture.height)}
    return element("img", src=data, alt=description, **size, **attributes)


def hit_cards(result: SearchResult) -> Html:
    """The hits of a query, best first: picture, rank, score, probability where there is one, caption and name."""
    cards = []
    for rank, hit in enumerate(result, 1):
        caption = str((hit.metadata.get("captions") or [""])[0])
        likely = "" if hit.probability is None else f" · {hit.probability:.0%} likely"
        cards.append(
            element(
                "figure",
                picture_element(thumbnail(hit.uri, size=_CARD), caption or name_of(hit)),
                element(
                    "figcaption",
                    element("b", f"{rank}."),
                    f" {hit.score:.3f}{likely}",
                    element("span", caption, class_="said"),
                    element("span", name_of(hit), class_="name", title=hit.uri),
                ),
            )
        )
    return element("div", *cards, class_="cards") if cards else element("p", "nothing found", class_="gone")


def name_of(hit: Hit) -> str:
    """What a hit is called in a few letters: the last part of its URI, else its id."""
    return hit.uri.rsplit("/", 1)[-1] or hit.id


def result_section(result: SearchResult) -> Html:
    """A query as a heading, its remarks, and its hits."""
    notes = [element("p", str(note), class_="note") for note in result.notes]
    return element("section", element("h3", _shortened(result.query)), *notes, hit_cards(result))


def _shortened(query: str) -> str:
    # A query may be a page long.
    return query if len(query) <= _QUERY else query[:_QUERY].rstrip() + " ..."


def document(title: str, *parts: str | Html) -> bytes:
    """A whole page.

    Args:
        title: What the browser's tab says.
        parts: The body.

    Returns:
        The page in UTF-8; what UTF-8 cannot say, such as half of a surrogate pair in a file's name, is a `?`.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(_STYLE)),
    )
    page = element("html", head, element("body", element("main", *parts)), lang="en")
    return f"<!doctype html>\n{page}\n".encode("utf-8", "replace")


_STYLE = """
:root{color-scheme:light dark;--ink:#191919;--faint:#5d5d5d;--paper:#fff;--ground:#f3f4f6;--line:#d9dce1;
--accent:#0b5cad;--good:#d7ecdf;--bad:#fbe0d2;--chip:#e3edf8}
@media (prefers-color-scheme:dark){:root{--ink:#ececec;--faint:#a9adb4;--paper:#15171a;--ground:#22262b;
--line:#3a4048;--accent:#7db8f5;--good:#1f4431;--bad:#5b2f1c;--chip:#22364b}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:2rem;line-height:1.2;margin:0 0 .5rem}
h2{font-size:1.45rem;margin:3rem 0 .25rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1.1rem;margin:1.75rem 0 .6rem;overflow-wrap:anywhere}
p{max-width:46rem;margin:.4rem 0}a{color:var(--accent)}
code{font:.88em ui-monospace,Menlo,Consolas,monospace;background:var(--ground);padding:.1em .35em;border-radius:4px;
overflow-wrap:anywhere}
.lead,.faint,.name,.note,.gone{color:var(--faint)}
nav a{margin-right:1.25rem}
img{max-width:100%;height:auto}
figure{margin:0}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:1rem}
.cards img{display:block;width:100%;height:190px;object-fit:contain;background:#fff;border:1px solid var(--line);
border-radius:8px}
.cards figcaption{font-size:.85rem;margin-top:.4rem;overflow-wrap:anywhere}
.cards .said,.cards .name{display:block}.cards .name{font-size:.78rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:1.5rem;align-items:start}
.pair figure img{display:block;width:100%;border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:.9rem;margin:.5rem 0}
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
details{margin:.6rem 0;font-size:.88rem}summary{cursor:pointer;color:var(--accent)}
details p{white-space:pre-line;margin:.5rem 0}
.written{display:grid;grid-template-columns:minmax(180px,260px) 1fr;gap:1.5rem;align-items:start;margin:1rem 0 2rem}
.written>img{display:block;width:100%;background:#fff;border:1px solid var(--line);border-radius:8px}
.caption{font-size:1.3rem;line-height:1.9;margin:0 0 .75rem}
mark{color:inherit;background:var(--good);border-radius:4px;padding:.05em .2em}
mark.without{background:var(--bad);text-decoration:underline wavy}
.cited{white-space:nowrap}sup{font-size:.6em;line-height:0;margin-left:.15em}sup a{text-decoration:none}
ol.evidence{list-style:none;margin:.5rem 0;padding:0;display:grid;gap:.5rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,270px),1fr))}
ol.evidence li{display:grid;grid-template-columns:1.6rem 56px 1fr;gap:.6rem;align-items:center;font-size:.88rem;
padding:.35rem;border:1px solid var(--line);border-radius:8px}
ol.evidence li:target{background:var(--chip);outline:2px solid var(--accent)}
ol.evidence img{width:56px;height:56px;object-fit:contain;background:#fff;border-radius:4px}
.number{font-weight:600;color:var(--accent);text-align:right}
footer{margin-top:3rem;border-top:1px solid var(--line);padding-top:1rem;font-size:.85rem;color:var(--faint)}
@media (max-width:640px){.cards{grid-template-columns:1fr 1fr}.cards img{height:150px}
.written{grid-template-columns:1fr}.written>img{max-width:260px}}
"""
