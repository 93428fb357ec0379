"""Notes on features, in a JSON file beside the SAE."""

from __future__ import annotations

import json
from pathlib import Path

from saelib.files import write


def read_notes(file: Path | None) -> dict[str, str]:
    """Notes by feature; an absent file holds none, a damaged one is an error and is not overwritten."""
    if file is None or not file.exists():
        return {}
    try:
        return {str(k): str(v) for k, v in json.loads(file.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not a file of notes ({error}): move it away, or repair it") from error


class Notes:
    """Notes by feature, kept here and, where there is a file, there.

    The file is read again before each write and only the one note replaced, so that two browsers share it.
    """

    def __init__(self, file: str | Path | None) -> None:
        self.file = Path(file) if file else None
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
        self.by_feature[str(feature)] = text
        if self.file is not None:
            self.by_feature = read_notes(self.file) | {str(feature): text}
        self.by_feature = {f: note for f, note in self.by_feature.items() if note.strip()}
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write(self.file, json.dumps(self.by_feature, indent=1, ensure_ascii=False).encode())
