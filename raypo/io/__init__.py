"""Run folders, atomic writes, hashes, progress, and local copies of remote folders."""
