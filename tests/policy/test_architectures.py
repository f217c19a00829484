"""Every decoder that transformers offers: right from packed rows or one by one, or refused."""

import logging
from collections import Counter

import pytest
import torch

from raypo.policy import PackedPolicy, decoder_check, pack_responses
from raypo.policy.beam import search_titles
from raypo.policy.catalogue import CatalogueTree, score_catalogue
from raypo.policy.title_tree import title_tree

from .architectures import MODEL_TYPES, class_and_config, tiny_model
from .models import plain_logps

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

# ruff: noqa: SIM905
PACKED = """
    afmoe apertus arcee aria_text axk1 bitnet cohere cohere2 cohere2_moe cohere_compass_text
    ctrl cwm dbrx deepseek_v2 deepseek_v3 diffllama dots1 emu3 ernie4_5 ernie4_5_moe exaone4
    exaone_moe flex_olmo fuyu gemma gemma2 gemma3 gemma3_text gemma3n_text gemma4 gemma4_text
    gemma4_unified gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite got_ocr2 gpt-sw3 gpt2
    gpt_bigcode gpt_neox granite granitemoe granitemoeshared helium hrm_text hunyuan_v1_dense
    hunyuan_v1_moe hy_v3 hyperclovax jais2 jetmoe laguna llama longcat_flash mellum minicpm3
    minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral mllama nanochat olmo
    olmo2 olmo3 olmoe opt persimmon phi phi3 phi4_multimodal qwen2 qwen3 qwen3_moe seed_oss
    smollm3 solar_open starcoder2 vaultgemma youtu
""".split()
UNPACKED = """
    axk2 bamba bart bigbird_pegasus biogpt blenderbot blenderbot-small bloom codegen
    deepseek_v32 deepseek_v4 doge falcon falcon_h1 falcon_mamba git glm_moe_dsa gpt_neo
    gpt_neox_japanese gpt_oss gptj granite_swa granitemoe_swa granitemoehybrid hy_v4
    inkling_text jamba kimi_linear lfm2 lfm2_moe llama4 llama4_text mamba mamba2 marian mbart
    mimo_v2_flash minimax moshi mpt mvp nemotron nemotron_h olmo_hybrid openai-gpt pegasus
    phimoe plbart qwen2_moe qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_next
    qwen4_exp_text recurrent_gemma reformer rwkv stablelm trocr whisper xglm xlstm zamba
    zamba2 zaya
""".split()
REFUSED = """
    bert bert-generation big_bird camembert cpmant data2vec-text electra ernie megatron-bert
    modernbert-decoder prophetnet rembert roberta roberta-prelayernorm roc_bert roformer xlm
    xlm-roberta xlm-roberta-xl xlnet xmod
""".split()

EXPECTED = {
    **dict.fromkeys(PACKED, "packed"),
    **dict.fromkeys(UNPACKED, "unpacked"),
    **dict.fromkeys(REFUSED, "refused"),
}
NOT_BUILT = {
    "blt": "its parts depend on sizes of each other",
    "gemma3n": "needs timm for its vision part; gemma3n_text is in the table",
    "gemma4_assistant": "drafts tokens for another model",
    "gemma4_unified_assistant": "drafts tokens for another model",
    "musicgen": "needs an audio and a text encoder",
    "musicgen_melody": "needs an audio and a text encoder",
    "qwen4_exp": "lacks settings in its defaults; qwen4_exp_text is in the table",
}


@pytest.fixture(scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Other lengths than those that the check itself uses.
COUNTS = ((13, (3, 8, 1)), (7, (6, 2, 5)))


def batch():
    generator = torch.Generator().manual_seed(1)

    def tokens(count):
        return torch.randint(20, 97, (count,), generator=generator).tolist()

    prompts = [tokens(prompt) for prompt, _ in COUNTS]
    return prompts, [[tokens(count) for count in counts] for _, counts in COUNTS]


def test_the_table_names_every_architecture():
    named = Counter([*PACKED, *UNPACKED, *REFUSED, *NOT_BUILT])
    assert set(MODEL_TYPES) <= set(named)
    assert max(named.values()) == 1


@pytest.mark.filterwarnings("ignore")  # from transformers' own code
@pytest.mark.parametrize("model_type", [t for t in MODEL_TYPES if t in EXPECTED])
@torch.no_grad()
def test_log_probs_are_those_of_plain_logits_or_refused(model_type, caplog, monkeypatch):
    monkeypatch.setattr(decoder_check, "_routes", {})
    model = tiny_model(model_type, seed=1)
    prompts, responses = batch()
    plain = torch.stack(
        [
            torch.stack([plain_logps(model, prompt, response) for response in own])
            for prompt, own in zip(prompts, responses, strict=True)
        ]
    )
    expected = EXPECTED[model_type]
    with caplog.at_level(logging.WARNING, logger="raypo"):
        if expected == "refused":
            with pytest.raises(ValueError, match="cannot be used: "):
                PackedPolicy(model)
            return
        policy = PackedPolicy(model, recompute="auto")
    warned = [record for record in caplog.records if "own copy of the prompt" in record.message]
    assert bool(warned) == (expected == "unpacked")
    packed = pack_responses(prompts, responses, pad_token_id=0, token_budget=40)
    torch.testing.assert_close(policy(packed), plain, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", [t for t in MODEL_TYPES if EXPECTED.get(t) == "packed"])
@torch.no_grad()
def test_a_catalogue_has_the_log_probs_of_plain_logits(model_type, monkeypatch):
    monkeypatch.setattr(decoder_check, "_routes", {})
    monkeypatch.setattr(decoder_check, "_problems", {})
    model = tiny_model(model_type, seed=1)
    (prompt, *_), responses = batch()
    titles = [*responses[0], *responses[1], responses[0][0][:2]]
    plain = torch.stack([plain_logps(model, prompt, title) for title in titles])
    # Whether behind a prompt that is kept, or in packed rows where the check finds that wrong.
    scores = score_catalogue(model, prompt, CatalogueTree(titles, 8), pad_token_id=0)
    torch.testing.assert_close(scores, plain, atol=1e-4, rtol=0)
    try:
        found = search_titles(model, prompt, title_tree(titles), len(titles))
    except ValueError as error:
        assert "beam search is not right" in str(error)
    else:
        order = torch.tensor(found.titles).argsort()
        torch.testing.assert_close(torch.tensor(found.logps)[order], plain, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ["blt", "qwen4_exp"])
def test_a_decoder_without_a_tiny_copy_is_refused(model_type):
    from raypo.policy.decoder_check import find_route

    route = find_route(*class_and_config(model_type))
    assert route.rows == "refused"
    assert "a tiny copy of it does not run" in route.reason
