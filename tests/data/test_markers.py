"""Markers beside titles: one token each, with the features of its title."""

import numpy as np
import pytest

from raypo.assets import resolve_model, tiny_random
from raypo.data.hints import UserHints
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder, load_tokenizer

TITLES = ["To Have, or Not", "The item (1995)", "Cité {0}", "1984!", "item"]


class FixedHints:
    """Features are the item's id and whether it is a candidate."""

    sentence = ""

    def __init__(self, marker, order=None) -> None:
        self.marker, self.order = marker, order

    def __call__(self, histories, candidates, folds=None, hidden=None):
        def features(items, flag):
            return np.array([[item, flag] for item in items], dtype=np.float32)

        return [
            UserHints(self.order, None, features(history, 0), features(items, 1))
            for history, items in zip(histories, candidates, strict=True)
        ]


@pytest.fixture(scope="module", params=["tiny-random", "smollm2"])
def tokenizer(request):
    folder = (
        tiny_random() if request.param == "tiny-random" else resolve_model("smollm2-135m-instruct")
    )
    return load_tokenizer(folder)


@pytest.mark.parametrize("marker", ["before", "after"])
@pytest.mark.parametrize("order", [None, [2, 0, 1]])
@pytest.mark.parametrize("template", ["ranking", "{candidates}\nchosen: {history}."])
def test_each_title_has_a_marker_with_its_own_features(tokenizer, marker, order, template) -> None:
    template = load_template("ranking") if template == "ranking" else template
    encoder = Encoder(tokenizer, template, TITLES, hints=FixedHints(marker, order))
    history, candidates = [0, 4, 1], [3, 1, 2]
    users = encoder.encode([history], [candidates])
    (tokens,), (found,) = users.prompts, users.markers
    assert found.positions == sorted(found.positions) and len(found.positions) == 6
    words = {tokenizer.decode([tokens[position]]).strip() for position in found.positions}
    assert len(words) == 1 and words <= {"item", "x"}
    listed = candidates if order is None else [candidates[place] for place in order]
    expected = [[item, 0] for item in history] + [[item, 1] for item in listed]
    if template.startswith("{candidates}"):
        expected = expected[3:] + expected[:3]
    assert found.features.tolist() == expected
    for position, (item, _) in zip(found.positions, found.features, strict=True):
        title = TITLES[int(item)]
        if marker == "before":
            assert tokenizer.decode(tokens[position + 1 :]).startswith(f" {title}")
        else:
            assert tokenizer.decode(tokens[:position]).rstrip().endswith(f" {title}")


def test_a_prompt_that_is_cut_keeps_the_features_of_the_titles_that_stay(tokenizer) -> None:
    encoder = Encoder(tokenizer, load_template(None), TITLES, hints=FixedHints("after"))
    full = encoder.prompt([0, 1, 2], [3, 4])
    short = Encoder(
        tokenizer, load_template(None), TITLES, len(full) - 1, hints=FixedHints("after")
    )
    (found,) = short.encode([[0, 1, 2]], [[3, 4]]).markers
    assert found.features[:, 0].tolist() == [1, 2, 3, 4]
