"""Log-probs of vLLM's prompt tokens are the policy's own, whatever its prefix cache holds."""

import gc
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from raypo.assets import resolve_model
from raypo.config import PolicyConfig
from raypo.evaluation.vllm_engine import sum_logprobs
from raypo.policy.model import load_base
from raypo.policy.scoring import score_responses

pytestmark = pytest.mark.filterwarnings("ignore")
BLOCK = 128  # tokens of a block of the prefix cache on a CPU
END = 2


@pytest.fixture(scope="module")
def model_folder():
    return resolve_model("tiny-random")


@pytest.fixture(scope="module")
def scorer(model_folder):
    from raypo.evaluation.vllm_engine import VllmScorer

    scorer = VllmScorer(model_folder, "float32", max_model_len=512, kv_cache_gib=1)
    yield scorer
    scorer.close()
    del scorer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # vLLM leaves its sockets to the collector
        gc.collect()


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_base(PolicyConfig(dtype="float32"), model_folder).eval()


def tokens(generator, count):
    return generator.integers(10, 200, count).tolist()


def make_users(seed):
    """Prompts that end around a block's border, with responses that share their first tokens."""
    generator = np.random.default_rng(seed)
    prompts, responses = [], []
    for length in (*range(BLOCK - 6, BLOCK + 3), 2 * BLOCK - 1, 2 * BLOCK, 40):
        prompts.append(tokens(generator, length))
        series = tokens(generator, 8)
        responses.append([[*series, *tokens(generator, extra), END] for extra in (1, 2, 5, 9)])
    return prompts, responses


@pytest.mark.slow
def test_log_probs_are_the_policys_whatever_the_cache_holds(scorer, policy):
    prompts, responses = make_users(seed=0)
    expected = score_responses(policy, prompts, responses, END, batch_size=4).numpy()
    orders = [range(len(prompts)), range(len(prompts))[::-1], range(0, len(prompts), 2)]
    for order in orders:  # from the second on, whole rows are in the cache
        found = scorer([prompts[i] for i in order], [responses[i] for i in order])
        assert np.allclose(found, expected[list(order)], atol=1e-3)
    backwards = [own[::-1] for own in responses]
    found = scorer(prompts, backwards)
    assert np.allclose(found, expected[:, ::-1], atol=1e-3)


@pytest.mark.slow
def test_other_prompts_with_the_same_responses_do_not_leave_their_log_probs(scorer, policy):
    _, responses = make_users(seed=1)
    for seed in (2, 3):
        prompts, _ = make_users(seed)
        expected = score_responses(policy, prompts, responses, END, batch_size=4)
        for _ in range(2):
            assert torch.allclose(torch.tensor(scorer(prompts, responses)), expected, atol=1e-3)


def entry(token, value):
    return {token: SimpleNamespace(logprob=value)}


def test_an_answers_log_prob_is_the_sum_of_its_last_tokens():
    entries = [None, entry(7, -9.0), entry(5, -1.0), entry(2, -0.25)]
    assert sum_logprobs(entries, [5, 2], "x") == -1.25


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (None, "0 of its 2 tokens"),
        ([entry(2, -1.0)], "1 of its 2 tokens"),
        ([None, None, entry(2, -1.0)], "token 5 at position 0, but vLLM gave one of nothing"),
        ([None, entry(6, -1.0), entry(2, -1.0)], "token 5 at position 0.*gave one of token 6"),
        ([None, entry(5, math.nan), entry(2, -1.0)], "log-prob nan of token 5"),
        ([None, entry(5, -math.inf), entry(2, -1.0)], "log-prob -inf"),
        ([None, entry(5, 3e5), entry(2, -1.0)], "log-prob 300000.0"),
    ],
)
def test_a_missing_log_prob_is_an_error_that_names_the_row(entries, problem):
    with pytest.raises(RuntimeError, match=f"row 3, response 1: .*{problem}"):
        sum_logprobs(entries, [5, 2], "row 3, response 1")
