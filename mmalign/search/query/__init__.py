"""Composed queries: words and pictures, weighted, added and taken away.

A query is one or more terms joined by ` + ` or ` - ` (with a space on each side, so that `t-shirt` is one word):

    two dogs in the snow
    beach.jpg + sunset
    2:dog + beach.jpg - leash
    https://example.org/cat.jpg - "black and white"

A term is the path of a picture, its `file://` URI, the URL of a picture, or words. `2:` before it is its weight. Quotes
make words of anything, also of what would be a path or holds ` + `.

What a stranger may type is not to name files and servers: `Query.words` takes a text as words and nothing else, and
`allow_media=False` keeps the operators but looks at no file and no URL.
"""

from mmalign.search.query.batch import Encoded, as_queries, distinct, encode_queries
from mmalign.search.query.composed import Query, QueryLike
from mmalign.search.query.parsing import PictureRef, QueryTerm
from mmalign.search.query.stored import stored_picture

__all__ = [
    "Encoded",
    "PictureRef",
    "Query",
    "QueryLike",
    "QueryTerm",
    "as_queries",
    "distinct",
    "encode_queries",
    "stored_picture",
]
