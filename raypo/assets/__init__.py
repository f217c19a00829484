"""Built-in models and data sets, fetched as packages and verified; the tiny model of the tests."""

from raypo.assets.packages import (
    movielens_100k,
    resolve_model,
    smollm2_135m_instruct,
    tiny_random,
)

__all__ = ["movielens_100k", "resolve_model", "smollm2_135m_instruct", "tiny_random"]
