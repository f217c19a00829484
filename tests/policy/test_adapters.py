"""Models with merged adapters."""

import json
import shutil

import pytest
import torch

from raypo.assets import tiny_random
from raypo.config import LoraConfig, PolicyConfig
from raypo.data.tokenisation import load_tokenizer
from raypo.errors import InputError
from raypo.policy.adapters import AdapterScorer, load_policy, merged_model, save_adapter


def test_a_merged_model_has_the_base_models_tokenizer(tmp_path, monkeypatch):
    base = tiny_random()
    config = PolicyConfig(dtype="float32", lora=LoraConfig(rank=4))
    save_adapter(load_policy(config, base, seed=0), tmp_path / "adapter")
    monkeypatch.setenv("RAYPO_CACHE", str(tmp_path / "cache"))
    merged = merged_model(config, base, tmp_path / "adapter")
    assert merged != base and (merged / "model.safetensors").exists()
    ours, theirs = load_tokenizer(merged), load_tokenizer(base)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.special_tokens_map == theirs.special_tokens_map
    text = "Toy Story (1995), The Matrix"
    assert ours(text).input_ids == theirs(text).input_ids


def test_a_merged_model_is_made_again_for_another_scale_or_base_model(tmp_path, monkeypatch):
    base = tmp_path / "base"
    shutil.copytree(tiny_random(), base)
    config = PolicyConfig(dtype="float32", lora=LoraConfig(rank=4))
    adapter = tmp_path / "adapter"
    save_adapter(load_policy(config, base, seed=0), adapter)
    monkeypatch.setenv("RAYPO_CACHE", str(tmp_path / "cache"))
    merged = [merged_model(config, base, adapter)]
    assert merged_model(config, base, adapter) == merged[0]
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["lora_alpha"] *= 2
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    merged.append(merged_model(config, base, adapter))
    shutil.copyfile(tiny_random(seed=1) / "model.safetensors", base / "model.safetensors")
    merged.append(merged_model(config, base, adapter))
    assert len(set(merged)) == 3


@pytest.fixture
def policies(tmp_path):
    """Two adapters, and what the policy of each gives as logits."""
    config = PolicyConfig(dtype="float32", lora=LoraConfig(rank=4))
    expected, folders = {}, {}
    for seed, name in enumerate(("one", "two")):
        policy = load_policy(config, tiny_random(), seed)
        with torch.no_grad():
            for weight_name, weight in policy.named_parameters():
                if "lora_B" in weight_name:
                    weight += 0.1 * (seed + 1)
        folders[name] = tmp_path / name
        save_adapter(policy, folders[name])
        expected[name] = policy(TOKENS).logits.detach()
    with policy.disable_adapter():
        expected["base"] = policy(TOKENS).logits.detach()
    return config, folders, expected


TOKENS = torch.arange(12)[None]


def logits(scorer, name):
    with scorer.using(name) as model, torch.no_grad():
        return model(TOKENS).logits


def test_adapters_come_and_go_while_others_stay(policies):
    config, folders, expected = policies
    scorer = AdapterScorer(config, tiny_random(), {"base": None})
    for name in ("one", "two"):
        scorer.add(name, folders[name])
        for known in ("base", "one"):
            assert torch.allclose(logits(scorer, known), expected[known], atol=1e-5)
    scorer.add("again", folders["two"])
    scorer.remove("two")
    assert torch.allclose(logits(scorer, "again"), expected["two"], atol=1e-5)
    with pytest.raises(KeyError), scorer.using("two"):
        pass
    scorer.add("again", folders["one"])  # another folder under the name
    assert torch.allclose(logits(scorer, "again"), expected["one"], atol=1e-5)
    shutil.copytree(folders["two"], folders["one"], dirs_exist_ok=True)  # trained into again
    scorer.add("again", folders["one"])
    assert torch.allclose(logits(scorer, "again"), expected["two"], atol=1e-5)
    assert torch.allclose(logits(scorer, "one"), expected["one"], atol=1e-5)


@pytest.mark.parametrize("loaded", [{}, {"one": None}])
def test_an_adapter_that_does_not_fit_changes_nothing(policies, tmp_path, loaded):
    config, folders, expected = policies
    given = {"base": None, **{name: folders[name] for name in loaded}}
    scorer = AdapterScorer(config, tiny_random(), given)
    settings = json.loads((folders["two"] / "adapter_config.json").read_text())
    (folders["two"] / "adapter_config.json").write_text(json.dumps(settings | {"r": 3}))
    with pytest.raises(InputError, match="two: does not fit the base model"):
        scorer.add("two", folders["two"])
    (folders["two"] / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="two: does not fit the base model"):
        scorer.add("two", folders["two"])
    with pytest.raises(InputError, match=r"adapter_config\.json is missing"):
        scorer.add("absent", tmp_path)
    for name in given:
        assert torch.allclose(logits(scorer, name), expected[name], atol=1e-5)
    scorer.add("one", folders["one"])
    assert torch.allclose(logits(scorer, "one"), expected["one"], atol=1e-5)
