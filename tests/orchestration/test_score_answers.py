"""What scorers return is checked before it is stored."""

import math

import numpy as np
import pandas as pd
import pytest

from raypo.assets import resolve_model
from raypo.config import PolicyConfig
from raypo.data.prompts import load_template
from raypo.data.tokenisation import Encoder, load_tokenizer
from raypo.evaluation.models import LanguageModels
from raypo.policy.adapters import load_policy, save_adapter

# Ray's own modules are written against older pydantic and warn about it.
pytestmark = pytest.mark.filterwarnings("ignore")
TITLES = ["Red", "Blue", "Green"]
POLICY = PolicyConfig(model="tiny-random", dtype="float32")


def language_models(folder, weight):
    """The base model, and an adapter whose weights hold `weight` somewhere."""
    base = resolve_model(POLICY.model)
    policy = load_policy(POLICY, base, seed=0)
    next(one for name, one in policy.named_parameters() if "lora_B" in name).data[0, 0] = weight
    folder.mkdir()
    save_adapter(policy, folder)
    encoder = Encoder(load_tokenizer(base), load_template(None), TITLES)
    return LanguageModels(base, {"base": None, "trained": folder}, POLICY, encoder)


def make_requests(name):
    requests = pd.DataFrame({"name": name, "row": [3, 8], "permutation": 0})
    requests["history"] = [[0], [1]]
    requests["candidates"] = [[1, 2], [0, 2]]
    return requests


def test_log_probs_that_are_no_numbers_are_an_error_that_names_model_and_row(tmp_path):
    from raypo.orchestration.inference.score import _PackedScorer

    scorer = _PackedScorer(language_models(tmp_path / "adapter", math.nan), batch_size=2)
    with pytest.raises(RuntimeError, match="model 'trained', row 3: the log-prob of candidate 0"):
        scorer(make_requests("trained"))
    answers = scorer(make_requests("base"))
    assert answers["row"].tolist() == [3, 8]
    assert np.isfinite(np.stack(answers["logps"])).all()
