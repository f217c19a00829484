"""One training loop for SFT and alignment. It knows no Ray; orchestration runs it on workers."""
