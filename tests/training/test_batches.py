"""Batches: the tensors of given rows, drawn anew every epoch."""

from types import SimpleNamespace

import pandas as pd

from raypo.data.candidates import TrainingCandidates
from raypo.data.tokenisation import Encoder
from raypo.data.training_rows import TrainingRows
from raypo.training.batches import BatchMaker


class Characters:
    """A tokenizer of one token per character, enough for an Encoder."""

    eos_token_id = 1

    def __call__(self, text: str, **_: object):
        return SimpleNamespace(input_ids=[ord(letter) for letter in text])


def test_batches_are_the_same_again_and_fresh_in_the_next_epoch():
    train = pd.DataFrame(
        {"user_id": [0, 1], "history": [[1, 2], [3]], "target": [4, 5], "timestamp": [0, 1]}
    )
    titles = [f"t{i}" for i in range(40)]
    encoder = Encoder(Characters(), "{history}|{candidates}", titles)
    table = TrainingRows.of_frame(train)
    maker = BatchMaker(table, TrainingCandidates(table, 40, 10, seed=3), encoder, 0, negatives=3)
    first, again, later = maker(0, [0, 1]), maker(0, [0, 1]), maker(1, [0, 1])
    assert first.packed.tokens.equal(again.packed.tokens)
    assert first.chosen_items.tolist() == [4, 5]
    assert first.history_items.tolist() == [[1, 2], [3, -1]]
    assert first.seen_items.tolist() == [[1, 2, 4], [3, 5, -1]]
    assert not first.rejected_items.equal(later.rejected_items)
    assert first.packed.lengths.shape == (2, 4)
    for row, rejected in enumerate(first.rejected_items.tolist()):
        known = {*train["history"][row], train["target"][row]}
        assert len(set(rejected) - known) == 3
