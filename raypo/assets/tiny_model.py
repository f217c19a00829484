"""A tiny randomly initialised Llama with a tokenizer of its own: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_VOCABULARY = 600  # as many tokens as the texts below yield
_SPECIAL = ["<pad>", "<eos>"]
_TEXTS = [
    "Someone chose these, oldest first:",
    "Which of these did they choose next?",
    "Answer: The Godfather; Star Wars; Toy Story; Fargo; Contact; Return of the Jedi; Scream",
    "The English Patient; Jerry Maguire; Liar Liar; Air Force One; Independence Day; Titanic",
    "Raiders of the Lost Ark; Pulp Fiction; Twelve Monkeys; "
    "The Silence of the Lambs; Jurassic Park",
    "Love and Death in the City of Men; Last Days of Summer; A Story of Night and Day; Dead Man",
    "One Good Girl in Black and White; My Best Life with Mr. Smith; Beautiful Game; The American",
    "A person who likes old films about the sea will often choose another one of that kind.",
    "Every evening we watch something new: a comedy, a thriller, a drama or an animated adventure.",
    "Silver River; Green Mountain; Winter Light; Broken Arrow; Summer Garden; Northern Station",
    "The children found their way through the forest before morning, when rain began to fall.",
    "King of the House; The Secret Garden; Big Trouble for Little Women; Mother and Child of War",
]


def build_tiny_model(folder: Path, seed: int = 0) -> None:
    """Write model and tokenizer into `folder`: 2 layers, hidden 64, context 1,024.

    Args:
        folder: an existing empty folder.
        seed: of the weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),  # every id the model can generate is a token
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_SPECIAL[0], eos_token=_SPECIAL[1]
    )
