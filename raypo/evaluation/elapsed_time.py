"""How long answering took over all calls, of which some may have been killed."""

from __future__ import annotations

import time
from pathlib import Path

from raypo.io.files import read_json, write_json

_BETWEEN_WRITES = 1.0  # seconds


class ElapsedTime:
    """Seconds so far, kept in a file: a call that is killed counts up to its last answers."""

    def __init__(self, file: Path) -> None:
        """Go on from what `file` holds, if it is there."""
        self._file = file
        self._before = float(read_json(file)["seconds"]) if file.exists() else 0.0
        self._started = self._written = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of all calls, this one included."""
        return self._before + time.monotonic() - self._started

    def keep(self) -> None:
        """Write the seconds down, unless that was done just now."""
        if time.monotonic() - self._written >= _BETWEEN_WRITES:
            write_json(self._file, {"seconds": round(self.seconds, 3)})
            self._written = time.monotonic()
