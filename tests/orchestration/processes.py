"""The processes that a test started, itself or through the shared cluster."""

import psutil


def started(part: str) -> list[psutil.Process]:
    """Those whose command line has `part`; other test workers' processes are not among them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue  # it has ended meanwhile
        if part in command:
            found.append(process)
    return found
