"""Models with merged adapters."""

import json
import shutil

from raypo.assets import tiny_random
from raypo.config import LoraConfig, PolicyConfig
from raypo.data.tokenisation import load_tokenizer
from raypo.policy.adapters import load_policy, merged_model, save_adapter


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
