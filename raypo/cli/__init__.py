"""The `raypo` command: its commands, progress bars and tables.

Nothing heavy is imported until a command needs it.
"""

from raypo.cli.main import main, stage_main

__all__ = ["main", "stage_main"]
