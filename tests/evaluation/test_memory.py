"""A model that learned a data set by heart is found out, and one that never saw it is not."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from raypo.assets import resolve_model
from raypo.config import PolicyConfig
from raypo.data.dataset import load_dataset
from raypo.data.tokenisation import load_tokenizer
from raypo.evaluation import memory
from raypo.evaluation.memory import probe_memory
from raypo.policy.completion import completions
from raypo.policy.model import greedy_answer, load_base

FLOAT32 = PolicyConfig(dtype="float32")


@pytest.fixture(scope="module")
def model_folder() -> Path:
    return resolve_model("tiny-random")


def learned(model_folder: Path, data: Path):
    """The tiny model after it read the real ids of the catalogue many times."""
    model, tokenizer = load_base(FLOAT32, model_folder), load_tokenizer(model_folder)
    questions = list(memory._ids(load_dataset(data), np.random.default_rng([0, 1]), 30))
    texts = [f"{one.prompt} {one.answer}" for one in questions]
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        for start in range(0, len(texts), 16):
            batch = tokenizer(texts[start : start + 16], return_tensors="pt", padding=True)
            labels = batch.input_ids.masked_fill(batch.attention_mask == 0, -100)
            model(**batch, labels=labels).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    return model.eval(), tokenizer


def test_what_a_model_knows_by_heart_is_found(
    inputs: tuple[Path, Path, Path], model_folder: Path
) -> None:
    dataset = load_dataset(inputs[0])
    fresh = load_base(FLOAT32, model_folder).eval()
    tokenizer = load_tokenizer(model_folder)
    before = {one.what: one for one in probe_memory(fresh, tokenizer, dataset, count=30)}
    assert set(before) == {"second halves of titles", "ids of titles", "next ids of users' rows"}
    assert not any(one.found for one in before.values())
    model, tokenizer = learned(model_folder, inputs[0])
    after = {one.what: one for one in probe_memory(model, tokenizer, dataset, count=30)}
    ids = after["ids of titles"]
    assert ids.found and ids.exact > 0.1 > 0.05 > ids.synthetic
    assert ids.logp_low > 0


@torch.no_grad()
def test_answers_are_exact_where_greedy_decoding_gives_them(model_folder: Path) -> None:
    model, tokenizer = load_base(FLOAT32, model_folder).eval(), load_tokenizer(model_folder)
    prompts = [list(tokenizer(text).input_ids) for text in ("A film of", "Titles of", "The next")]
    answers = [greedy_answer(model, prompt, 3, tokenizer.eos_token_id) for prompt in prompts]
    answers = [answer[:2] for answer in answers]
    answers[1] = [answers[1][0], answers[1][1] + 1]
    exact, logps = completions(model, prompts, answers, batch_size=2)
    assert exact.tolist() == [True, False, True]
    logits = model(input_ids=torch.tensor([prompts[2] + answers[2]])).logits[0].log_softmax(-1)
    steps = range(len(prompts[2]) - 1, len(prompts[2]) + 1)
    expected = sum(float(logits[s, t]) for s, t in zip(steps, answers[2], strict=True)) / 2
    assert logps[2] == pytest.approx(expected, abs=1e-5)
    assert (logps < 0).all()


def test_questions_of_the_synthetic_catalogue_have_the_same_shape(
    inputs: tuple[Path, Path, Path],
) -> None:
    dataset = load_dataset(inputs[0])
    for make in memory._KINDS.values():
        questions = list(make(dataset, np.random.default_rng(0), 50))
        assert len(questions) > 10
        for one in questions:
            assert (
                one.answer != one.synthetic_answer or "User" in one.prompt or "user" in one.prompt
            )
            assert len(one.answer.split()) == len(one.synthetic_answer.split())
            assert len(one.prompt.splitlines()) == len(one.synthetic_prompt.splitlines())


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([], "completes nothing more often"),
        (["second halves of titles"], "no memory of this data set's ids and rows"),
        (["second halves of titles", "ids of titles"], "completes ids of titles more often"),
    ],
)
def test_titles_alone_are_no_memory_of_a_data_set(found: list[str], verdict: str) -> None:
    from raypo.cli import tables

    findings = [
        memory.MemoryFinding(what, 9, 0.5, 0.1, 0.1 if what in found else -0.1, 0.6, 1.0, 0.5, 1.5)
        for what in memory._KINDS
    ]
    console = Console(width=200, file=StringIO())
    console.print(tables.memory("tiny", findings))
    assert verdict in console.file.getvalue()  # type: ignore[attr-defined]
