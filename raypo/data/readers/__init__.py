"""Readers of raw logs and catalogues. Errors name file and line."""

from raypo.data.readers.interactions import LogColumns, LogReader, log_reader, read_interactions
from raypo.data.readers.items import OTHER, ItemColumns, read_items
from raypo.data.readers.rejected_rows import RejectedRow, RejectedRows

__all__ = [
    "OTHER",
    "ItemColumns",
    "LogColumns",
    "LogReader",
    "RejectedRow",
    "RejectedRows",
    "log_reader",
    "read_interactions",
    "read_items",
]
