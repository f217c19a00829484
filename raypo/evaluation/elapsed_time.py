"""Elapsed seconds of inference over several calls, some of which may have been killed."""

from __future__ import annotations

import time
from pathlib import Path

from raypo.io.files import read_json, write_json

_SECONDS_BETWEEN_WRITES = 1.0


class ElapsedTime:
    """Seconds over all calls, stored in a file; a killed call counts up to its last answers."""

    def __init__(self, file: Path) -> None:
        """Start from the seconds in `file`, if it exists."""
        self._file = file
        self._earlier = float(read_json(file)["seconds"]) if file.exists() else 0.0
        self._started = self._written = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of all calls, including this one."""
        return self._earlier + time.monotonic() - self._started

    def save(self) -> None:
        """Write the seconds to the file, at most once a second."""
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_WRITES:
            write_json(self._file, {"seconds": round(self.seconds, 3)})
            self._written = time.monotonic()
