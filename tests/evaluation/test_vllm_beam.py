"""A beam search in vLLM finds the titles, and the log-probs, of the policy's own search."""

import gc
import warnings

import numpy as np
import pytest

from raypo.assets import resolve_model
from raypo.config import PolicyConfig
from raypo.policy.beam import search_titles
from raypo.policy.model import load_base
from raypo.policy.title_tree import title_tree

pytestmark = pytest.mark.filterwarnings("ignore")
END = 2


@pytest.fixture(scope="module")
def model_folder():
    return resolve_model("tiny-random")


@pytest.fixture(scope="module")
def engine(model_folder):
    from raypo.evaluation.vllm_beam import VllmBeam

    engine = VllmBeam(model_folder, "float32", max_model_len=256, kv_cache_gib=1)
    yield engine
    engine.close()
    del engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # vLLM leaves its sockets to the collector
        gc.collect()


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_base(PolicyConfig(dtype="float32"), model_folder).eval()


def tokens(generator, count):
    return generator.integers(10, 250, count).tolist()


@pytest.fixture(scope="module")
def titles():
    """More first tokens than vLLM answers for at once, series, and one title within another."""
    generator = np.random.default_rng(0)
    alone = [[first, *tokens(generator, 2), END] for first in range(10, 210)]
    series = [[11, 12, 13, *tokens(generator, extra), END] for extra in (1, 2, 2, 6)]
    return [*alone, *series, [11, 12, 13, END]]


@pytest.fixture(scope="module")
def prompts():
    generator = np.random.default_rng(1)
    return [tokens(generator, length) for length in (128, 5, 127, 60)]


@pytest.mark.parametrize(("k", "width"), [(5, None), (10, 10), (300, None), (3, 1)])
def test_titles_and_log_probs_are_those_of_the_policys_search(
    engine, policy, titles, prompts, k, width
):
    root = title_tree(titles)
    excluded = [{1, 203}, set(), {204}, set(range(100))]
    found = engine.search(prompts, root, k, width, excluded)
    for prompt, own, without in zip(prompts, found, excluded, strict=True):
        expected = search_titles(policy, prompt, root, k, width, without)
        assert own.titles == expected.titles
        assert own.logps == pytest.approx(expected.logps, abs=1e-4)
        assert own.num_tokens == expected.num_tokens
        assert len(own.titles) == len(set(own.titles)) and not set(own.titles) & without


def test_an_answer_without_a_wanted_token_is_refused():
    from raypo.evaluation.vllm_beam import _in_order

    with pytest.raises(RuntimeError, match="no log-prob of token 7"):
        _in_order([{}], [7])
