"""Has a language model read the benchmark? A probe of what it completes word for word.

Di Palma et al. (arXiv 2505.10212) ask language models for MovieLens' items, users and ratings.
This probe asks the same of any data set, and asks each question of a synthetic catalogue too, whose
parts are the real ones in another order: what a model completes there, it has guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raypo.data.dataset import Dataset
from raypo.evaluation.intervals import bootstrap_interval
from raypo.io.progress import Progress, no_progress
from raypo.policy.completion import completions
from raypo.policy.response_tree import common_prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TITLES = "second halves of titles"  # may be known from anywhere, unlike ids and rows
SHOTS = 5  # examples before a question, so that a model knows what is asked for
_ROW = 8  # ids of a user's row that are shown
_NUM_BOOTSTRAP = 2000


@dataclass(frozen=True)
class Question:
    """A text and how it goes on, in the data set and in a synthetic one.

    Attributes:
        prompt: text, without a space at its end.
        answer: how it goes on, without the space before it.
        synthetic_prompt, synthetic_answer: the same of the synthetic catalogue.
    """

    prompt: str
    answer: str
    synthetic_prompt: str
    synthetic_answer: str


@dataclass(frozen=True)
class MemoryFinding:
    """What a model completed of one kind of question.

    Attributes:
        what: the kind of question.
        count: of questions.
        exact, synthetic: share completed word for word, of the data set and of the synthetic one.
        low, high: 95% bootstrap interval of exact - synthetic, over questions.
        logp_difference: mean log-prob of a true token less that of a synthetic one, in nats.
        logp_low, logp_high: its 95% interval.
    """

    what: str
    count: int
    exact: float
    synthetic: float
    low: float
    high: float
    logp_difference: float
    logp_low: float
    logp_high: float

    @property
    def found(self) -> bool:
        """Whether more is completed than in the synthetic catalogue, at the 5% level."""
        return self.low > 0


def probe_memory(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    count: int = 200,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[MemoryFinding]:
    """Ask for the second halves of titles, for the ids of titles, and for the rows of users.

    Args:
        model: a base model in evaluation mode.
        tokenizer: its tokenizer.
        dataset: whose catalogue and rows are asked for.
        count: questions of each kind, at most.
        seed: of the draws, and of the synthetic catalogue.
        progress: receives finished kinds.
    """
    findings = []
    for number, (what, make) in enumerate(_KINDS.items()):
        progress(number, len(_KINDS), what)
        questions = list(make(dataset, np.random.default_rng([seed, number]), count))
        if questions:
            findings.append(_ask(what, model, tokenizer, questions, seed))
    progress(len(_KINDS), len(_KINDS), "done")
    return findings


def _ask(
    what: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    seed: int,
) -> MemoryFinding:
    real = [(one.prompt, one.answer) for one in questions]
    synthetic = [(one.synthetic_prompt, one.synthetic_answer) for one in questions]
    exact, logps = _completed(model, tokenizer, real)
    guessed, guessed_logps = _completed(model, tokenizer, synthetic)
    difference = exact.astype(float) - guessed.astype(float)
    gain = logps - guessed_logps
    return MemoryFinding(
        what,
        len(questions),
        float(exact.mean()),
        float(guessed.mean()),
        *bootstrap_interval(difference, _NUM_BOOTSTRAP, seed),
        float(gain.mean()),
        *bootstrap_interval(gain, _NUM_BOOTSTRAP, seed),
    )


def _completed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, np.ndarray]:
    prompts, answers = [], []
    for prompt, answer in texts:
        before = list(tokenizer(prompt).input_ids)
        both = list(tokenizer(f"{prompt} {answer}").input_ids)
        # A tokenizer may join the prompt's end with what follows; the answer begins at the fork.
        same = common_prefix(before, both)
        prompts.append(both[:same])
        answers.append(both[same:])
    return completions(model, prompts, answers)


def _titles(dataset: Dataset, generator: np.random.Generator, count: int) -> Iterator[Question]:
    """The second half of a title; synthetic: that of another title with as many words."""
    halves = [_halves(title) for title in dict.fromkeys(dataset.titles) if len(title.split()) > 1]
    if len(halves) <= SHOTS + 1:
        return
    drawn = [halves[index] for index in generator.permutation(len(halves))]
    shots, asked = drawn[:SHOTS], drawn[SHOTS : SHOTS + count]
    others = _exchanged([(second, str(len(second.split()))) for _, second in drawn[SHOTS:]])
    synthetic_shots = _exchanged([(second, "") for _, second in shots])
    listed = "\n".join(f"- {first} {second}" for first, second in shots)
    synthetic = "\n".join(
        f"- {first} {other}" for (first, _), other in zip(shots, synthetic_shots, strict=True)
    )
    for (first, second), other in zip(asked, others[:count], strict=True):
        if other != second:
            yield Question(
                f"Titles of a catalogue:\n{listed}\n- {first}",
                second,
                f"Titles of a catalogue:\n{synthetic}\n- {first}",
                other,
            )


def _halves(title: str) -> tuple[str, str]:
    words = title.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def _ids(dataset: Dataset, generator: np.random.Generator, count: int) -> Iterator[Question]:
    """The id of a title in the source; synthetic: that of another item with as many characters."""
    pairs = list(zip(dataset.titles, map(str, dataset.items["source_id"]), strict=True))
    if len(pairs) <= SHOTS + 1:
        return
    drawn = [pairs[index] for index in generator.permutation(len(pairs))]
    others = _exchanged([(source, str(len(source))) for _, source in drawn])
    listed, synthetic = (
        "\n".join(f"{title} has the id {source}" for (title, _), source in shots)
        for shots in (
            [(pair, pair[1]) for pair in drawn[:SHOTS]],
            list(zip(drawn[:SHOTS], others[:SHOTS], strict=True)),
        )
    )
    chosen = list(zip(drawn, others, strict=True))[SHOTS : SHOTS + count]
    for (title, source), other in chosen:
        if other != source:
            yield Question(
                f"Items and their ids:\n{listed}\n{title} has the id",
                source,
                f"Items and their ids:\n{synthetic}\n{title} has the id",
                other,
            )


def _rows(dataset: Dataset, generator: np.random.Generator, count: int) -> Iterator[Question]:
    """The next id of a user's row; synthetic: the row after ids were exchanged in the catalogue."""
    ids = [str(one) for one in dataset.items["source_id"]]
    order = generator.permutation(len(ids))
    shuffled = [ids[index] for index in order]
    exchanged = dict(
        zip(shuffled, _exchanged([(one, str(len(one))) for one in shuffled]), strict=True)
    )
    frame = dataset.train if len(dataset.train) else dataset.test
    long_enough = [at for at, history in enumerate(frame["history"]) if len(history) >= _ROW]
    for at in generator.permutation(long_enough)[:count]:
        row = frame.iloc[int(at)]
        shown = [ids[item] for item in row["history"][-_ROW:]]
        target = ids[row["target"]]
        yield Question(
            f"A user's items in the order of time: {', '.join(shown)},",
            target,
            f"A user's items in the order of time: {', '.join(exchanged[one] for one in shown)},",
            exchanged[target],
        )


def _exchanged(texts: Sequence[tuple[str, str]]) -> list[str]:
    """Each text's successor among those of its shape (second entry), the last one's the first."""
    of_shape: dict[str, list[int]] = {}
    for index, (_, shape) in enumerate(texts):
        of_shape.setdefault(shape, []).append(index)
    result = [text for text, _ in texts]
    for members in of_shape.values():
        for index, successor in zip(members, members[1:] + members[:1], strict=True):
            result[index] = texts[successor][0]
    return result


_KINDS: dict[str, Callable[[Dataset, np.random.Generator, int], Iterator[Question]]] = {
    TITLES: _titles,
    "ids of titles": _ids,
    "next ids of users' rows": _rows,
}
