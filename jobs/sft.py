"""`python jobs/sft.py --config FILE key=value …`, by hand or as a Ray job's entry point."""

from raypo.cli import stage_main

if __name__ == "__main__":
    stage_main("sft")
