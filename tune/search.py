"""`python tune/search.py --config tune/napo.yaml …`: search gamma_0, alpha, rho and beta."""

from raypo.cli import stage_main

if __name__ == "__main__":
    stage_main("tune")
