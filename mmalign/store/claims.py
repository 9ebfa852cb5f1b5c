"""Who gave what is kept of an item: its column `said`, by which a source can take away what it gave, and nothing else.

The column holds JSON: for each source the digest of all that it last said of the item, and the columns that are its
own. A column belongs to whoever gave it last. What `update` has set belongs to the user, and no source changes it.

    {"txt":["5f0c...","captions"],"user":["","stars"]}

Earlier versions kept the digest alone, from which nobody can tell which columns it stands for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SIDECAR = "txt"
"""The text file beside a picture, whichever way the picture was named."""
ROWS = "rows"
"""Rows, or items, that are handed in from Python."""
CALL = "add"
"""`metadata=` of `Collection.add`: for good, as there is no source that could give it up."""
_USER = "user"
_EARLIER = ""
_DIGEST = re.compile("[0-9a-f]{16}")

_Record = dict[str, tuple[str, frozenset[str]]]


@dataclass(frozen=True, slots=True)
class Claim:
    """What one source says of an item beside its bytes.

    Attributes:
        source: `SIDECAR`, `ROWS`, `CALL` or what `table_key` gives.
        values: Values by column, `captions` among them; None is as good as nothing.
        digest: A digest of all that it says, as it says it: that it is kept as another type is no change. None to take
            that of the values.
        earlier: The digest by which earlier versions would have known it; None where it says nothing.
    """

    source: str
    values: Mapping[str, Any]
    digest: str | None = None
    earlier: str | None = None

    @property
    def mark(self) -> str:
        """What tells whether it says the same as before."""
        return self.digest or _digest(self.given)

    @property
    def given(self) -> dict[str, Any]:
        """The values that are there."""
        return {name: value for name, value in self.values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class MergedClaims:
    """What is to be written of an item when its sources have spoken.

    Attributes:
        claims_json: The column `said`.
        values: Values to set, by column; None where one is taken away.
        overruled: Columns that the user has set, and a source that has changed says otherwise.
    """

    claims_json: str | None
    values: Mapping[str, Any]
    overruled: frozenset[str] = frozenset()


def table_key(uri: str) -> str:
    """The name by which a table is known in `said`.

    Args:
        uri: The table's.

    Returns:
        Eight hexadecimal digits.
    """
    return hashlib.blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def merge_claims(
    claims_json: str | None, claims: Iterable[Claim], *, fields: Collection[str] = ()
) -> MergedClaims | None:
    """Compare what sources say of an item now with what they said before.

    Args:
        claims_json: The item's column; None where nobody has said anything.
        claims: What sources say now; one that gives nothing takes away what it gave.
        fields: Columns that the sources give to some item; what an earlier version of mmalign may have set by them.

    Returns:
        What is to be written; None where nothing has changed.
    """
    record = _parse(claims_json)
    before = dict(record)
    kept = record.get(_USER, ("", frozenset[str]()))[1]
    values: dict[str, Any] = {}
    overruled: frozenset[str] = frozenset()
    for claim in claims:
        given = claim.given
        own = frozenset(given) - kept
        known = record.get(claim.source)
        if _EARLIER in record and claim.source != CALL:
            known = _adopt(record, claim, own, frozenset(fields) | {"captions"})
        digest = claim.mark if given else ""
        if known == (digest, own) or (known is None and not given):
            if known is not None:
                record[claim.source] = known
            continue
        values |= dict.fromkeys((known[1] if known else frozenset()) - own - kept)
        values |= {name: given[name] for name in own}
        overruled |= kept & given.keys()
        record = {source: (mark, names - own) for source, (mark, names) in record.items() if source != claim.source}
        if given:
            record[claim.source] = (digest, own)
    if record == before:
        return None
    return MergedClaims(_text(record), values, overruled)


def _adopt(
    record: _Record, claim: Claim, own: frozenset[str], fields: frozenset[str]
) -> tuple[str, frozenset[str]] | None:
    """Take over what an earlier version knew: the digest where it is the same, else all that it may have set."""
    known = record.get(claim.source)
    if not claim.given:
        # Whose it was is not known, so that nobody can take it away.
        return known
    digest, _ = record.pop(_EARLIER)
    if digest == claim.earlier:
        return claim.mark, own
    return digest, fields | (known[1] if known else frozenset())


def keep_for_user(claims_json: str | None, names: Iterable[str]) -> str | None:
    """Give columns of an item to the user, so that no source changes them any more.

    Args:
        claims_json: The item's column.
        names: The columns.

    Returns:
        The new text of the column.
    """
    record = _parse(claims_json)
    taken = frozenset(names)
    mine = record.get(_USER, ("", frozenset[str]()))[1] | taken
    # The digests stay: a source that says the same again has not changed.
    record = {source: (digest, own - taken) for source, (digest, own) in record.items()}
    if mine:
        record[_USER] = ("", mine)
    return _text(record)


def _parse(claims_json: str | None) -> _Record:
    if not claims_json:
        return {}
    if _DIGEST.fullmatch(claims_json):
        return {_EARLIER: (claims_json, frozenset())}
    try:
        return {source: (digest, frozenset(names)) for source, (digest, *names) in json.loads(claims_json).items()}
    except (ValueError, TypeError, AttributeError):
        # Damaged: as if nobody had spoken, so that the sources say it again.
        return {}


def _text(record: _Record) -> str | None:
    if not record:
        return None
    if record.keys() == {_EARLIER}:
        return record[_EARLIER][0]
    payload = {source: [digest, *sorted(names)] for source, (digest, names) in record.items()}
    return json.dumps(payload, sort_keys=True, separators=(",", ":"))


def _digest(given: Mapping[str, Any]) -> str:
    text = json.dumps(given, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
