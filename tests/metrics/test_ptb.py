"""Tokens of captions: what Stanford CoreNLP 3.4.1 made of the same sentences, written down here as facts."""

from __future__ import annotations

import pytest

from mmalign.metrics.ptb import caption_tokens, ptb_tokenize

# Each line was run once through `java edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase`.
KNOWN = {
    "I live on Main St. Today": "i live on main st. today",
    "tub/shower and/or black/white/red": "tub/shower and/or black/white/red",
    "he can't won't don't cannot gonna gotta wanna lemme gimme": (
        "he ca n't wo n't do n't can not gon na got ta wan na lem me gim me"
    ),
    "it's the dogs' bowl and James's hat": "it 's the dogs ' bowl and james 's hat",
    "o'clock d'oeuvre L'Oreal rock 'n' roll rock'n'roll": "o'clock d'oeuvre l'oreal rock 'n' roll rock 'n' roll",
    "“hello” it\u2019s": "`` hello '' it 's",
    "a - b -- c --- d \u2013 e — f": "a - b -- c -- d -- e -- f",
    "black-and-white t-shirt well - known": "black-and-white t-shirt well - known",
    "3/4 1/2 ½ 3.5 1,000 10:30 10:30am 3pm 5ft": "3/4 1/2 1/2 3.5 1,000 10:30 10:30 am 3pm 5ft",
    "$5 $5.00 £5 €5 5% #1 # 1": "$ 5 $ 5.00 # 5 $ 5 5 % # 1 # 1",
    "(hi) [hi] {hi} :) ;) :-)": "-lrb- hi -rrb- -lsb- hi -rsb- -lcb- hi -rcb- :-rrb- ;-rrb- :--rrb-",
    "a & b AT&T &amp; &lt;": "a & b at&t & <",
    "me@example.com http://www.a.com/b?c=d www.x.org x.org": "me@example.com http://www.a.com/b?c=d www.x.org x.org",
    "a.m. p.m. 5 a.m.": "a.m. p.m. 5 a.m.",
    "he's she'd they'll we've I'm you're": "he 's she 'd they 'll we 've i 'm you 're",
    "no. 5 is No. 5": "no. 5 is no. 5",
    "the sun.": "the sun .",
    "café décor fiancé naïve": "café décor fiancé naïve",
    "狗在跑 una niña año": "狗在跑 una niña año",
    "50's 1950's 80's '80s ' 80s": "50 's 1950 's 80 's '80s ' 80s",
    "hello!! what?! wow!?!": "hello !! what ?! wow !?!",
    "J.P. Morgan J. P. Morgan": "j.p. morgan j. p. morgan",
    "T.V. show. t.v.": "t.v. show . t.v.",
    "test_a connect_anywhere": "test_a connect_anywhere",
    "well...": "well ...",
}


@pytest.mark.parametrize("sentence", KNOWN)
def test_as_corenlp(sentence: str) -> None:
    assert " ".join(ptb_tokenize(sentence)) == KNOWN[sentence]


def test_words_that_count() -> None:
    assert caption_tokens('A "red" ball, (two) dogs - and a cat; done!') == (
        "a", "red", "ball", "-lrb-", "two", "-rrb-", "dogs", "and", "a", "cat", "done",
    )  # fmt: skip
    assert caption_tokens(" \n\t ") == ()


@pytest.mark.parametrize("text", ["x" + "'s" * 20_000, "a." * 20_000, "<a " * 20_000, "w" * 100_000, ". " * 20_000])
def test_no_text_takes_long(text: str) -> None:
    assert ptb_tokenize(text)
