from __future__ import annotations

import copy
import json
import pickle

from mmalign import Note


def test_a_note_is_its_text_and_keeps_its_parts() -> None:
    note = Note("two rows share an id", remedy="rename one", about="shop.csv:3")
    assert note == "two rows share an id; rename one"
    assert json.loads(json.dumps([note])) == ["two rows share an id; rename one"]
    for other in (pickle.loads(pickle.dumps(note)), copy.copy(note), copy.deepcopy(note)):
        assert type(other) is Note
        assert other.to_dict() == {"text": "two rows share an id", "remedy": "rename one", "about": "shop.csv:3"}


def test_a_note_without_a_remedy_is_the_text_alone() -> None:
    assert Note("all is well") == "all is well"
    assert Note("all is well").remedy == ""


def test_a_note_is_read_from_what_was_kept_of_it() -> None:
    note = Note("two rows share an id", remedy="rename one", about="shop.csv:3")
    again = Note.read(json.loads(json.dumps(note.to_dict())))
    assert (type(again), again, again.to_dict()) == (Note, note, note.to_dict())
    # An index of an earlier version kept the text alone, which is not cut apart.
    assert Note.read("this; and that").to_dict() == {"text": "this; and that", "remedy": "", "about": ""}
