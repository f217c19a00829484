"""One training loop for SFT and alignment, without Ray."""
