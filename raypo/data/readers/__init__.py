"""Readers of raw logs and catalogues. Whatever is wrong is reported with file and line."""

from raypo.data.readers.interactions import LogReader, log_reader, read_interactions
from raypo.data.readers.items import read_items
from raypo.data.readers.rejected_rows import BadRow, Malformed

__all__ = ["BadRow", "LogReader", "Malformed", "log_reader", "read_interactions", "read_items"]
