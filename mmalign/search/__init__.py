"""A query to hits: plan, index, rows that it lacks, probabilities."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.search.coverage import Coverage as Coverage
    from mmalign.search.coverage import belongs as belongs
    from mmalign.search.flat_scan import ExactRows as ExactRows
    from mmalign.search.hit_reader import HitReader as HitReader
    from mmalign.search.hit_reader import with_copies as with_copies
    from mmalign.search.probability import Probability as Probability
    from mmalign.search.probability import find_calibration as find_calibration
    from mmalign.search.query import Encoded as Encoded
    from mmalign.search.query import Query as Query
    from mmalign.search.query import QueryLike as QueryLike
    from mmalign.search.query import as_queries as as_queries
    from mmalign.search.query import encode_queries as encode_queries
    from mmalign.search.query import stored_picture as stored_picture
    from mmalign.search.rerank import Ranking as Ranking
    from mmalign.search.rerank import Reranker as Reranker
    from mmalign.search.rerank import RerankRequest as RerankRequest
    from mmalign.search.rerank import fetch_sizes as fetch_sizes
    from mmalign.search.score_range import ScoreRange as ScoreRange
    from mmalign.search.searcher import FoundRows as FoundRows
    from mmalign.search.searcher import How as How
    from mmalign.search.searcher import Searcher as Searcher

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "coverage": ["Coverage", "belongs"],
        "flat_scan": ["ExactRows"],
        "hit_reader": ["HitReader", "with_copies"],
        "probability": ["Probability", "find_calibration"],
        "query": ["Encoded", "Query", "QueryLike", "as_queries", "encode_queries", "stored_picture"],
        "rerank": ["Ranking", "RerankRequest", "Reranker", "fetch_sizes"],
        "score_range": ["ScoreRange"],
        "searcher": ["FoundRows", "How", "Searcher"],
    },
)
