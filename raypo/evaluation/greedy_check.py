"""Generated answers of engines against greedy decoding by the policy itself."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from raypo.evaluation.models import LanguageModels


@dataclass(frozen=True)
class GreedyCheck:
    """Agreement of one model's answers.

    Attributes:
        rows: compared answers.
        same: equal answers among them.
    """

    rows: int
    same: int


def check_greedy(
    requests: pd.DataFrame,
    answers: pd.DataFrame,
    models: LanguageModels,
    num_checks: int,
    max_new_tokens: int,
) -> dict[str, GreedyCheck]:
    """Decode the first answered rows of each model again, with the policy in this process.

    An engine that ignores an adapter, or confuses two, differs here.

    Args:
        requests: columns name, row, history, candidates.
        answers: columns name, row, answer.
        models: the models that answered.
        num_checks: rows of each model.
        max_new_tokens: of an answer.

    Returns:
        The agreement by model name.
    """
    from raypo.policy.adapters import AdapterScorer
    from raypo.policy.model import greedy_answer

    policy = AdapterScorer(models.policy, models.folder, models.adapters)
    encoder = models.encoder
    stop = encoder.tokenizer.eos_token_id
    answered = requests.merge(answers[["name", "row", "answer"]]) if len(answers) else requests[:0]
    checks = {}
    for name in models.names:
        rows = answered[answered["name"] == name].head(num_checks)
        same = 0
        with policy.using(name) as model:
            for row in rows.itertuples():
                prompt = encoder.prompt(row.history, row.candidates)  # type: ignore[arg-type]
                tokens = greedy_answer(model, prompt, max_new_tokens, stop)
                same += first_line(encoder.decode(tokens)) == row.answer
        checks[name] = GreedyCheck(len(rows), same)
    return checks


def first_line(text: str) -> str:
    """The first line that is not empty: untuned models often begin with a line break."""
    return text.strip().partition("\n")[0].strip()
