"""Files and folders: run folders, atomic writes, hashes, copies of remote folders."""
