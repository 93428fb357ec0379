"""Notes on features, in a JSON file beside the SAE."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock

from saelib.corpus import mended
from saelib.files import resolved, write


def read_notes(file: Path | None) -> dict[str, str]:
    """Notes by feature; an absent file holds none, a damaged one is an error and is not overwritten."""
    if file is None or not file.exists():
        return {}
    try:
        notes = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(notes, dict) or not all(isinstance(v, (str, type(None))) for v in notes.values()):
            raise ValueError("notes are texts by feature")
        return {f: mended(note) for f, note in notes.items() if note is not None}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not a file of notes ({error}): move it away, or repair it") from error


class Notes:
    """Notes by feature, kept here and, where there is a file, there.

    Under a lock the file is read again and only the one note replaced, so that two browsers share it.
    """

    def __init__(self, file: str | Path | None) -> None:
        self.file = resolved(file) if file else None
        self.by_feature = read_notes(self.file)

    def get(self, feature: int) -> str:
        """The note on a feature, "" where there is none."""
        return self.by_feature.get(str(feature), "")

    def known(self) -> dict[int, str]:
        """The notes by the number of their feature; what is not a number belongs to no feature."""
        return {int(f): note for f, note in self.by_feature.items() if f.isdecimal()}

    def set(self, feature: int, text: str) -> None:
        """Keep a note (an empty one is removed), and write the file whole or not at all.

        Raises:
            ValueError: the file is damaged. OSError: it cannot be written.
        """
        note = {str(feature): mended(text)}
        self.by_feature |= note
        with ExitStack() as stack:
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with suppress(OSError, NotImplementedError):  # a folder where nothing can be locked
                    stack.enter_context(FileLock(self.file.with_name(f".{self.file.name}.lock")))
                self.by_feature = read_notes(self.file) | note
            self.by_feature = {f: text for f, text in self.by_feature.items() if text.strip()}
            if self.file is not None:
                write(self.file, json.dumps(self.by_feature, indent=1, ensure_ascii=False).encode())
