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
        error: why nothing was compared; None otherwise.
    """

    rows: int
    same: int
    error: str | None = None


def rows_to_check(requests: pd.DataFrame, answers: pd.DataFrame, num_checks: int) -> pd.DataFrame:
    """The first answered rows of each model.

    Args:
        requests: columns name, row, history, candidates.
        answers: columns name, row, answer.
        num_checks: rows of each model.

    Returns:
        Columns name, row, history, candidates, answer.
    """
    columns = ["name", "row", "history", "candidates"]
    if not len(answers):
        return requests[columns].head(0).assign(answer="")
    answered = requests[columns].merge(answers[["name", "row", "answer"]])
    return answered.groupby("name", sort=False).head(num_checks)


def check_greedy(
    rows: pd.DataFrame, models: LanguageModels, max_new_tokens: int
) -> dict[str, GreedyCheck]:
    """Decode answers again with the policy, which is loaded in this process.

    An engine that ignores an adapter, or confuses two, differs here.

    Args:
        rows: of `rows_to_check`.
        models: the models that answered.
        max_new_tokens: of an answer.

    Returns:
        The agreement by model name.
    """
    from raypo.policy.adapters import AdapterScorer
    from raypo.policy.model import greedy_answer

    policy = AdapterScorer(models.policy, models.folder, models.adapters)
    encoder = models.encoder
    stop = encoder.tokenizer.eos_token_id
    checks = {}
    for name in models.names:
        own = rows[rows["name"] == name]
        same = 0
        with policy.using(name) as model:
            for row in own.itertuples():
                user = encoder.encode([row.history], [row.candidates])  # type: ignore[list-item]
                markers = None if user.markers is None else user.markers[0]
                prompt = user.prompts[0]
                embeddings = policy.embeddings(name, prompt, markers) if markers else None
                tokens = greedy_answer(model, prompt, max_new_tokens, stop, embeddings)
                same += _same_text(encoder.decode(tokens), str(row.answer))
        checks[name] = GreedyCheck(len(own), same)
    return checks


def _same_text(decoded: str, answer: str) -> bool:
    """Whether texts agree but for a last character that the limit on tokens cut in two.

    vLLM leaves out its bytes, a tokenizer decodes them as a replacement character.
    """
    return first_line(decoded.rstrip("\ufffd")) == first_line(answer.rstrip("\ufffd"))


def first_line(text: str) -> str:
    """The first line that is not empty: untuned models often begin with a line break."""
    return text.strip().partition("\n")[0].strip()
