"""Every kind of recommender: causality, padding, cut histories, cosines; each kind's formula."""

import math

import pytest
import torch

from raypo.errors import InputError
from raypo.recommenders.build import build_recommender
from raypo.recommenders.histories import ending, most_recent
from tests.recommenders.inputs import KINDS, SMALL, small_model


@pytest.fixture(params=KINDS)
def model(request):
    return small_model(request.param)


def test_later_items_do_not_change_earlier_positions(model):
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 9, 7]])
    assert model(one).shape == (1, 4, 16)
    torch.testing.assert_close(model(one)[:, :2], model(other)[:, :2])
    assert not torch.allclose(model(one)[:, 2], model(other)[:, 2])


def test_the_embedding_is_the_state_at_the_last_item(model):
    histories = torch.tensor([[1, 2, 3, 4, 5], [6, 7, -1, -1, -1]])
    states = model(histories)
    expected = torch.stack([states[0, 4], states[1, 1]])
    torch.testing.assert_close(model.embed(histories), expected)


def test_padding_changes_nothing(model):
    plain, padded = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 3, -1, -1, -1, -1]])
    torch.testing.assert_close(model.embed(plain), model.embed(padded))
    one_of_two = torch.tensor([[1, 2, 3, -1, -1], [5, 6, 7, 8, 9]])
    torch.testing.assert_close(model.embed(plain)[0], model.embed(one_of_two)[0])


def test_the_order_of_a_history_counts(model):
    embedded = model.embed(torch.tensor([[1, 2, 3], [2, 1, 3]]))
    assert not torch.allclose(embedded[0], embedded[1])


def test_long_histories_are_cut_to_the_most_recent(model):
    embedded = model.embed(torch.tensor([[9, 8, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, -1, -1]]))
    torch.testing.assert_close(embedded[0], embedded[1])
    longer = model.embed(torch.tensor([[9, 1, 2, 3, 4, 5, -1], [1, 2, 3, 4, 5, -1, -1]]))
    torch.testing.assert_close(longer[0], longer[1])


def test_scores_are_cosines_and_padding_scores_zero(model):
    torch.manual_seed(1)
    embeddings = torch.randn(3, 16) * 100
    items = torch.tensor([[0, 1, -1], [5, 5, -1], [19, 2, -1]])
    scores = model.score(embeddings, items).tolist()
    vectors = model.items.weight.double().tolist()
    for row, embedding in enumerate(embeddings.double().tolist()):
        for position in (0, 1):
            vector = vectors[int(items[row, position])]
            inner = sum(a * b for a, b in zip(embedding, vector, strict=True))
            cosine = inner / (math.hypot(*embedding) * math.hypot(*vector))
            assert scores[row][position] == pytest.approx(cosine, abs=1e-6)
        assert scores[row][2] == 0


def test_scores_stay_within_one(model):
    # Rounding takes the cosine of a vector with itself beyond 1 now and then.
    vectors = model.items.weight.detach() * 1e3
    scores = torch.cat(
        [model.score(v, torch.arange(20).repeat(20, 1)) for v in (vectors, -vectors)]
    )
    assert scores.max() <= 1
    assert scores.min() >= -1
    torch.testing.assert_close(scores[:20].diagonal(), torch.ones(20))


def test_sets_longer_than_the_catalogue_score_the_same(model):
    embeddings = model.embed(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    items = torch.arange(-1, 44).clamp_max(19).repeat(2, 1)
    pieces = [model.score(embeddings, piece) for piece in items.split(15, dim=1)]
    torch.testing.assert_close(model.score(embeddings, items), torch.cat(pieces, dim=1))
    scored = model.score(embeddings, torch.arange(20).repeat(2, 1))
    torch.testing.assert_close(model.score_all(embeddings), scored)


def test_every_weight_is_trained(model):
    model.requires_grad_(True)
    model.train()
    states = model(torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, -1, -1]]))
    loss = model.score_all(states.flatten(0, 1)).square().sum()
    torch.autograd.backward(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_one_recurrent_layer_with_dropout_does_not_warn():
    assert small_model("gru4rec", layers=1, dropout=0.5).embed(torch.tensor([[1]])).shape == (1, 16)


def test_caser_follows_the_paper():
    model = small_model("caser").requires_grad_(False)
    history = [4, 9, 7]
    # Three items of five: two blanks come first.
    image = torch.cat([torch.zeros(2, 16), model.items.weight[history]])
    patterns = []
    for height, convolution in enumerate(model.horizontal, start=1):
        assert convolution.kernel_size == (height,)
        windows = [image[start : start + height] for start in range(5 - height + 1)]
        for filter_, bias in zip(convolution.weight, convolution.bias, strict=True):
            values = [float((window * filter_.T).sum() + bias) for window in windows]
            patterns.append(max(0.0, *values))
    # Joined value by value. Any order would do, because a fully connected layer follows.
    sums = torch.stack([weights @ image for weights in model.vertical.weight], dim=1)
    expected = model.out(torch.cat([torch.tensor(patterns), sums.flatten()]))
    torch.testing.assert_close(model.embed(torch.tensor([history]))[0], expected)


def test_gru4rec_follows_the_paper():
    model = small_model("gru4rec", layers=1)
    # The gates of torch's cell: reset, update, candidate.
    update_in, update_state = model.gru.weight_ih_l0, model.gru.weight_hh_l0
    state = torch.zeros(16)
    for item in (4, 9, 7):
        given = update_in @ model.items.weight[item] + model.gru.bias_ih_l0
        kept = update_state @ state + model.gru.bias_hh_l0
        reset = torch.sigmoid(given[:16] + kept[:16])
        update = torch.sigmoid(given[16:32] + kept[16:32])
        candidate = torch.tanh(given[32:] + reset * kept[32:])
        state = (1 - update) * candidate + update * state
    torch.testing.assert_close(model.embed(torch.tensor([[4, 9, 7]]))[0], model.out(state))


def test_sasrec_weights_keep_their_names():
    names = set(small_model("sasrec", layers=1).state_dict())
    block = ("attention_norm", "qkv", "out", "feed_norm", "feed.0", "feed.3")
    layers = [*(f"blocks.0.{part}" for part in block), "norm"]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert names == expected | {"items.weight", "positions.weight"}


@pytest.mark.parametrize(
    ("histories", "count", "recent", "last"),
    [
        ([[1, 2, 3]], 2, [[2, 3]], [[2, 3]]),
        ([[1, 2, -1]], 2, [[1, 2]], [[1, 2]]),
        ([[1, -1, -1]], 2, [[1, -1]], [[-1, 1]]),
        ([[1, 2, 3]], 5, [[1, 2, 3]], [[-1, -1, 1, 2, 3]]),
        ([[1, 2, -1], [4, 5, 6]], 3, [[1, 2, -1], [4, 5, 6]], [[-1, 1, 2], [4, 5, 6]]),
    ],
)
def test_histories_are_cut_and_padded_at_either_end(histories, count, recent, last):
    assert most_recent(torch.tensor(histories), count).tolist() == recent
    assert ending(torch.tensor(histories), count).tolist() == last


def test_invalid_settings_name_the_field():
    with pytest.raises(
        InputError, match="kind: 'bert4rec' is unknown; known are sasrec, gru4rec, caser, morec"
    ):
        build_recommender(SMALL | {"kind": "bert4rec"}, 20)
    settings = {name: value for name, value in SMALL.items() if name != "vertical_filters"}
    with pytest.raises(InputError, match="vertical_filters: missing, required by caser"):
        build_recommender(settings | {"kind": "caser"}, 20)
