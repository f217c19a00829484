"""A whole catalogue after a prompt: as each title by itself, in parts of any size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raypo.policy.catalogue import CatalogueTree, score_catalogue
from raypo.policy.logps import causal_lm_of
from tests.policy.models import CONFIGS, lora_model

TITLES = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), min_size=1, max_size=30)
PROMPT = [3, 4, 5, 6, 7]


def titles_of(seed, count=40):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    # Few tokens, so that titles share first ones; one title is the beginning of others.
    return [
        [*torch.randint(20, 24, (length,), generator=generator).tolist(), 2] for length in lengths
    ] + [[2]]


def plain(model, prompt, title):
    """Log-prob of one title, from the logits of the plain sequence."""
    model = causal_lm_of(model)
    logits = model(input_ids=torch.tensor([prompt + title])).logits[0].float()
    logps = logits.log_softmax(dim=-1)
    return sum(logps[len(prompt) + at - 1, token] for at, token in enumerate(title))


@pytest.mark.parametrize("budget", [1, 16, 10_000])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_every_title_has_the_log_prob_that_it_has_alone(name, budget):
    model = lora_model(name).eval()
    titles = titles_of(0)
    scores = score_catalogue(model, PROMPT, CatalogueTree(titles, budget), pad_token_id=0)
    expected = torch.stack([plain(model, PROMPT, title) for title in titles])
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@given(TITLES, st.integers(1, 40))
def test_each_title_is_in_one_part_and_each_prefix_once_in_a_part(titles, budget):
    catalogue = CatalogueTree(titles, budget)
    assert sorted(index for part in catalogue.parts for index in part.titles) == list(
        range(len(titles))
    )
    for part in catalogue.parts:
        own = [titles[index] for index in part.titles]
        prefixes = {tuple(title[:end]) for title in own for end in range(1, len(title))}
        assert part.tokens.numel() == len(prefixes)
        assert len(own) == 1 or len(prefixes) <= budget
    assert catalogue.num_tokens <= catalogue.num_listed_tokens
