"""Whether a model goes on as a text does, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def completions(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    batch_size: int = 8,
) -> tuple[np.ndarray, np.ndarray]:
    """How a model continues prompts.

    Args:
        model: a decoder in evaluation mode.
        prompts: n lists of token ids, none empty.
        answers: n lists of token ids, none empty.
        batch_size: sequences per forward pass.

    Returns:
        Whether greedy decoding gives all of the answer's tokens, bool [n]; and the mean log-prob
        of these tokens in nats, float [n].
    """
    exact, logps = [], []
    for start in range(0, len(prompts), batch_size):
        pairs = list(zip(prompts, answers, strict=True))[start : start + batch_size]
        rows = [[*prompt, *answer] for prompt, answer in pairs]
        width = max(map(len, rows))
        tokens = torch.tensor([row + [row[-1]] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = next(model.parameters()).device
        logits = model(input_ids=tokens.to(device), attention_mask=mask.to(device)).logits
        for number, (prompt, answer) in enumerate(pairs):
            own = logits[number, len(prompt) - 1 : len(prompt) + len(answer) - 1].float().cpu()
            wanted = torch.tensor(list(answer))
            exact.append(bool((own.argmax(dim=-1) == wanted).all()))
            chosen = own.log_softmax(dim=-1)[torch.arange(len(answer)), wanted]
            logps.append(float(chosen.mean()))
    return np.array(exact, dtype=bool), np.array(logps)
