"""Beam search over titles finds the likeliest ones, with the log-probs that they have alone."""

from __future__ import annotations

import pytest
import torch

from raypo.policy.beam import search_titles
from raypo.policy.catalogue import CatalogueTree, score_catalogue
from raypo.policy.title_tree import title_tree
from tests.policy.models import CONFIGS, lora_model
from tests.policy.test_catalogue import PROMPT, titles_of


@pytest.mark.parametrize("name", CONFIGS)
def test_an_unlimited_search_is_exact_and_computes_less(name):
    model = lora_model(name).eval()
    titles = titles_of(1, count=80)
    tree = CatalogueTree(titles)
    scores = score_catalogue(model, PROMPT, tree, pad_token_id=0)
    excluded = {int(scores.argmax())}
    scores[list(excluded)] = -torch.inf
    found = search_titles(model, PROMPT, title_tree(titles), 5, excluded=excluded)
    assert len(found.titles) == 5
    torch.testing.assert_close(torch.tensor(found.logps), scores.sort(descending=True)[0][:5])
    torch.testing.assert_close(torch.tensor(found.logps), scores[found.titles])
    assert found.num_tokens < tree.num_tokens


def test_a_narrow_search_computes_as_many_tokens_as_its_width_allows():
    model = lora_model("llama").eval()
    titles = titles_of(2, count=200)
    scores = score_catalogue(model, PROMPT, CatalogueTree(titles), pad_token_id=0)
    narrow = search_titles(model, PROMPT, title_tree(titles), 10, width=4)
    assert narrow.num_tokens <= 4 * max(map(len, titles))
    assert 0 < len(set(narrow.titles)) == len(narrow.titles) <= 10
    torch.testing.assert_close(torch.tensor(narrow.logps), scores[narrow.titles])


def test_all_titles_are_found_where_there_are_fewer():
    model = lora_model("llama").eval()
    titles = [[20, 2], [20, 21, 2], [22, 2]]
    found = search_titles(model, PROMPT, title_tree(titles), 10, width=3, excluded=[2])
    assert sorted(found.titles) == [0, 1]
