"""What stays out of a collection though it lies in the source: by pattern, by ignore file, or because it always does.

Patterns are those of git (pathspec reads them), relative to the source's folder. The last word has what was said with
`--exclude`, then the `.mmalignignore` that lies nearest to the file, then the folders that hold no pictures of anyone's
own: thumbnails, wastebaskets, packages.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmalign.errors import InputError
from mmalign.media.reading import os_reason
from mmalign.media.uris import path_to_uri
from mmalign.types import Note

if TYPE_CHECKING:
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

IGNORE_FILE = ".mmalignignore"
"""A file of patterns that hold for its folder and all below it."""
NO_MEDIA = ".nomedia"
"""A file by which phones mark a folder whose pictures are none of the user's own."""

_DEFAULT_FOLDERS = frozenset(
    {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "$recycle.bin", "recycler"}
    | {"recycled", "system volume information", "__macosx", "lost+found", "node_modules", "lost.dir"}
    | {".thumbnails", ".trash", ".@__thumb", ".appledouble"}
)
_DEFAULT_ENDINGS = (".lrdata",)
_DEFAULT_STARTS = (".trash-", ".trashes")
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was said with `--exclude`.

    Attributes:
        text: As in a `.gitignore`; one that begins with `!` takes in again.
        folder: The source's folder that it was said for; None where that had none.
    """

    text: str
    folder: str | None = None


def check_patterns(patterns: str | Iterable[str]) -> tuple[str, ...]:
    """Refuse what is no pattern.

    Args:
        patterns: One or several.

    Returns:
        The patterns, stripped of line ends.

    Raises:
        InputError: One is empty, a comment, or means nothing.
    """
    given = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(given, Iterable):
        raise InputError(f"exclude takes patterns such as '*.gif' or 'raw/', got {patterns!r}")
    checked = []
    for text in given:
        if not isinstance(text, str) or not text.strip() or "\n" in text or "\0" in text:
            raise InputError(f"exclude takes patterns such as '*.gif' or 'raw/', got {text!r}")
        if _compiled(text) is None or text.lstrip().startswith("#"):
            raise InputError(f"{text!r} is no pattern; write it as in a .gitignore, such as '*.gif' or 'raw/'")
        checked.append(text)
    return tuple(checked)


def join_patterns(known: Sequence[Pattern], added: Sequence[str], folder: str | None) -> tuple[Pattern, ...]:
    """Patterns that were said earlier, with new ones.

    Args:
        known: Those said earlier, in their order.
        added: New ones; `!P` takes `P` back where that was said earlier.
        folder: Of the source that they are said for.

    Returns:
        The patterns that hold from now on.
    """
    joined = list(known)
    for text in added:
        if text.startswith("!") and any(pattern.text == text[1:] for pattern in joined):
            joined = [pattern for pattern in joined if pattern.text != text[1:]]
        else:
            joined = [pattern for pattern in joined if pattern.text != text]
            joined.append(Pattern(text, folder))
    return tuple(joined)


class Exclusion:
    """Says what stays out, and counts it.

    Args:
        base: The source's folder, absolute; None where it has none.
        patterns: What was said with `--exclude`, the last word last.
        walked: Whether all of the folder is looked through, rather than what a table or a list names.
    """

    def __init__(self, base: str | None = None, patterns: Sequence[Pattern] = (), *, walked: bool = True) -> None:
        self._base = base
        self._walked = walked
        self._specs: list[tuple[str | None, _Rules]] = []
        folders = dict.fromkeys([base, *(pattern.folder for pattern in patterns)])
        for folder in folders:
            # From the source at hand all patterns count; from the folder of an earlier one, what was said for that.
            lines = [one.text for one in patterns if folder == base or one.folder == folder]
            if lines:
                self._specs.append((folder, _Rules(lines)))
        self._files: dict[str, _Rules | None] = {}
        self._known: dict[tuple[str, bool], str | None] = {}
        self._counts: dict[str, list[int]] = {}
        self._troubles: list[Note] = []

    @property
    def holds_patterns(self) -> bool:
        """Whether anything was said with `--exclude`."""
        return bool(self._specs)

    def leaves_out(self, path: str, *, folder: bool = False) -> bool:
        """Whether an entry of a folder that is not left out itself stays out.

        Args:
            path: Absolute path of a file or folder.
            folder: Whether it is a folder.

        Returns:
            True where it stays out; it is counted then.
        """
        rule = self._rule(path, folder=folder)
        if rule is not None:
            self._counts.setdefault(rule, [0, 0])[folder] += 1
        return rule is not None

    def leaves_out_deep(self, path: str, *, listed: bool = True, count: bool = True) -> bool:
        """Whether a file stays out, by itself or with a folder that it lies in.

        Args:
            path: Absolute path of a file.
            listed: Whether the path stands by itself; where it comes with what is said of it, as in a table, only
                what was said with `--exclude` counts.
            count: Whether to count it where it stays out.

        Returns:
            True where it stays out.
        """
        look = self._rule if listed else self._by_pattern
        # As git has it: what lies in a folder that stays out cannot be taken in again.
        rule = next((found for part in self._folders(path) if (found := self._folder_rule(part, listed=listed))), None)
        rule = rule or look(path, folder=False)
        if rule and count:
            self._counts.setdefault(rule, [0, 0])[0] += 1
        return bool(rule)

    def covers(self, path: str) -> bool:
        """Whether a file of the source's folder stays out; it is not counted.

        Args:
            path: Absolute path of a file, which need not be there.

        Returns:
            True where it stays out; False for files that lie elsewhere.
        """
        if self._base is None or not _lies_in(path, self._base):
            return False
        return self.leaves_out_deep(path, listed=self._walked, count=False)

    def notes(self) -> tuple[Note, ...]:
        """What was left out, in one remark; and ignore files that could not be used."""
        if not self._counts:
            return tuple(self._troubles)
        counts = []
        for rule, (files, folders) in self._counts.items():
            kinds = [f"{n:,} {what}{'s' * (n > 1)}" for n, what in ((folders, "folder"), (files, "file")) if n]
            counts.append(f"{rule} ({', '.join(kinds)})")
        note = Note(f"left out by rule: {', '.join(counts)}", about=self._base or "")
        return (*self._troubles, note)

    def _folders(self, path: str) -> Iterator[str]:
        """The folders between the source's folder and a file, from the top down."""
        base = self._base
        start = len(base.rstrip(os.sep)) if base is not None and _lies_in(path, base) else 0
        at = path.find(os.sep, start + 1)
        while at > 0:
            yield path[:at]
            at = path.find(os.sep, at + 1)

    def _folder_rule(self, path: str, *, listed: bool) -> str | None:
        if (path, listed) not in self._known:
            look = self._rule if listed else self._by_pattern
            self._known[path, listed] = look(path, folder=True)
        return self._known[path, listed]

    def _rule(self, path: str, *, folder: bool) -> str | None:
        """What leaves an entry out: the pattern's text or the file's name; None where nothing does."""
        rule = self._by_pattern(path, folder=folder)
        if rule is None:
            rule = self._by_file(path, folder=folder)
            if rule is None:
                rule = _by_default(path, folder=folder)
        return rule or None

    def _by_pattern(self, path: str, *, folder: bool) -> str | None:
        """The pattern that leaves an entry out; empty where one keeps it, None where there is none for it."""
        for place, (base, rules) in enumerate(self._specs):
            if base is not None and _lies_in(path, base):
                name = path[len(base.rstrip(os.sep)) + 1 :]
            elif place == 0:
                name = path.lstrip(os.sep)
            else:
                continue
            found = rules.find(name, folder=folder)
            if found is not None:
                return found
        return None

    def _by_file(self, path: str, *, folder: bool) -> str | None:
        base = self._base
        if base is None or not _lies_in(path, base):
            return None
        parents = [base, *self._folders(path)]
        for parent in reversed(parents):
            if parent not in self._files:
                self._files[parent] = self._read(parent)
            file = self._files[parent]
            if file is not None:
                found = file.find(path[len(parent.rstrip(os.sep)) + 1 :], folder=folder)
                if found is not None:
                    return found and IGNORE_FILE
        return None

    def _read(self, folder: str) -> _Rules | None:
        path = os.path.join(folder, IGNORE_FILE)  # noqa: PTH118 - a hot path
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - a hot path
                lines = file.read(_LARGEST).decode("utf-8-sig").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._troubles.append(Note(f"not used: {os_reason(error)}", about=path_to_uri(path)))
            return None
        except UnicodeDecodeError:
            self._troubles.append(Note("not used: not UTF-8", remedy="save it as UTF-8", about=path_to_uri(path)))
            return None
        usable = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            if _compiled(line) is None:
                self._troubles.append(Note(f"line {number} is no pattern: {line!r}", about=path_to_uri(path)))
            else:
                usable.append(line)
        return _Rules(usable) if usable else None


class _Rules:
    """Patterns of one folder; the last one that fits counts."""

    def __init__(self, lines: Sequence[str]) -> None:
        compiled = [(line, _compiled(line)) for line in lines]
        self._all = [(line, one) for line, one in compiled if one is not None]
        # Folders are asked for before what lies in them, so that for a file only what files can fit counts.
        self._of_files = [(line, one) for line, one in self._all if not line.rstrip().endswith("/")]

    def find(self, name: str, *, folder: bool) -> str | None:
        """The pattern that leaves an entry out; empty where one keeps it, None where there is none for it."""
        rules = self._all if folder else self._of_files
        name = name.replace(os.sep, "/") + "/" * folder
        for line, pattern in reversed(rules):
            if pattern.match_file(name) is not None:
                return line if pattern.include else ""
        return None


def _compiled(line: str) -> GitIgnoreSpecPattern | None:
    # Late: most folders hold no ignore file, and a search reads no folder.
    from pathspec.patterns.gitignore import GitIgnorePatternError
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    try:
        pattern = GitIgnoreSpecPattern(line)
    except GitIgnorePatternError:
        return None
    # A pattern such as "/" is read, and matches nothing.
    return None if pattern.include is None else pattern


def _by_default(path: str, *, folder: bool) -> str | None:
    name = os.path.basename(path)  # noqa: PTH119 - a hot path
    if not folder:
        # What macOS keeps beside a file on disks of others: named like the picture, and none.
        return "._*" if name.startswith("._") else None
    lower = name.lower()
    if lower in _DEFAULT_FOLDERS or lower.endswith(_DEFAULT_ENDINGS) or lower.startswith(_DEFAULT_STARTS):
        return name
    return NO_MEDIA if os.path.isfile(os.path.join(path, NO_MEDIA)) else None  # noqa: PTH113, PTH118 - a hot path


def _lies_in(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)
