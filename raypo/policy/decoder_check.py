"""How a decoder's log-probs are computed: from packed rows, from one row per response, or not.

What is right is decided by computing: a tiny copy of the decoder (`tiny_copy`) scores a few
responses of four users in each way, and the result is compared with the logits of the plain
sequences. Nothing depends on lists of models.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from raypo.policy.attention import NAME, use_packed_attention
from raypo.policy.packed import packed_logps
from raypo.policy.packing import PackedResponses, pack_responses
from raypo.policy.tiny_copy import length_dependent_rope, tiny_copy
from raypo.policy.tiny_sizes import FIRST_TOKEN, VOCABULARY
from raypo.policy.unpacked import unpacked_logps

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger("raypo")
# Nats by which summed log-probs may differ in float32.
TOLERANCE = 1e-4
Rows = Literal["packed", "padded", "by_length", "refused"]
# Lengths of prompts and responses: ragged, longer than the tiny copy's windows, and on both sides
# of `_SHORT` positions.
_PROMPTS = (11, 6, 14, 3)
_RESPONSES = ((5, 1, 9), (2, 7, 1), (1, 3, 12), (16, 2, 4))
# Positions at which length-dependent rotary frequencies change in the tiny copy.
_SHORT = 12


@dataclass(frozen=True)
class Route:
    """How log-probs of a decoder are computed.

    Attributes:
        rows: packed; one row per response, padded or in calls of equal length; or not at all.
        attention: transformers' name of the attention.
        reason: why rows are not packed.
        limit: length of rows beyond which `beyond` holds; None is unlimited.
        beyond: route of batches with a longer row, with the same attention.
    """

    rows: Rows
    attention: str = NAME
    reason: str = ""
    limit: int | None = None
    beyond: Route | None = None


_routes: dict[tuple[type, str], Route] = {}


def route_of(causal_lm: PreTrainedModel) -> Route:
    """The fastest route that gives the decoder's own log-probs; computed once per configuration.

    The decoder itself is not run. A route that does not pack is said by a warning.

    Raises:
        ValueError: no route is right.
    """
    model_class, config = type(causal_lm), causal_lm.config
    key = (model_class, _identity(config))
    if key not in _routes:
        _routes[key] = find_route(model_class, config)
        _warn(config.model_type, _routes[key])
    route = _routes[key]
    if route.rows == "refused":
        raise ValueError(f"{model_class.__name__} cannot be used: {route.reason}")
    return route


def find_route(model_class: type, config: Any) -> Route:
    """`route_of` without its memory and warning; `rows` is `refused` where no route is right."""
    limit = length_dependent_rope(config)
    route = _checked(model_class, config)
    if limit is None or route.rows == "refused":
        return route
    beyond = _checked(model_class, config, _SHORT, (route.attention,))
    if beyond.rows == route.rows:
        return route
    return replace(route, limit=limit, beyond=beyond)


def problem_with(
    causal_lm: PreTrainedModel,
    compute: Callable[[Any, list[int], list[list[int]]], Tensor],
) -> str:
    """What is wrong with another way to log-probs, for decoders whose rows are packed.

    Args:
        causal_lm: a tiny copy of it is tried.
        compute: gives the summed log-probs [m] of m responses, from the copy, a prompt and them.

    Returns:
        Empty if the log-probs agree with those of plain logits; computed once for each
        configuration and way.
    """
    model_class, config = type(causal_lm), causal_lm.config
    key = (model_class, _identity(config), compute)
    if key not in _problems:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _one_thread(), _no_warnings():
            torch.manual_seed(0)
            model: Any = tiny_copy(model_class, config, None)
            prompts, responses = _batch()
            plain = _plain(model, prompts, responses)
            use_packed_attention(model)
            users = list(zip(prompts, responses, strict=True))
            _problems[key] = _problem(
                lambda: torch.stack([compute(model, *u) for u in users]), plain
            )
    return _problems[key]


_problems: dict[tuple[type, str, object], str] = {}


def _identity(config: Any) -> str:
    values = config.to_dict()
    for name in ("_name_or_path", "_attn_implementation", "attn_implementation", "dtype"):
        values.pop(name, None)
    return repr(sorted(values.items(), key=lambda item: str(item[0])))


def _warn(model_type: str, route: Route) -> None:
    for one, where in ((route, ""), (route.beyond, f" in rows of over {route.limit} tokens")):
        if one is not None and one.rows in ("padded", "by_length"):
            logger.warning(
                "%s: every response is computed with its own copy of the prompt%s, which is "
                "slower; packed rows are not right for it: %s",
                model_type,
                where,
                one.reason,
            )


def _checked(
    model_class: type,
    config: Any,
    rope_limit: int | None = None,
    attentions: Sequence[str] = ("sdpa", "eager"),
) -> Route:
    """The first route of a tiny copy that agrees with plain logits.

    Args:
        model_class: class of the decoder.
        config: its configuration.
        rope_limit: as in `tiny_copy`.
        attentions: attentions to try where rows are not packed.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _one_thread(), _no_warnings():
        torch.manual_seed(0)
        try:
            model: Any = tiny_copy(model_class, config, rope_limit)
            prompts, responses = _batch()
            plain = _plain(model, prompts, responses)
        except Exception as error:  # any class of decoder may fail in any way
            return Route("refused", reason=f"a tiny copy of it does not run: {_short(error)}")
        if not plain.isfinite().all():
            return Route("refused", reason="log-probs of a tiny copy of it are not finite")
        again = _plain(model, prompts[::-1], [own[::-1] for own in responses[::-1]])
        if not _agrees(again.flip(0, 1), plain):
            return Route("refused", reason="its log-probs depend on the rows computed before")
        if not _is_causal(model, prompts[0] + responses[0][0]):
            return Route("refused", reason="its logits depend on later tokens")
        packed = pack_responses(prompts, responses, pad_token_id=0)
        return _first_right(model, packed, plain, attentions)


def _first_right(
    model: Any, packed: PackedResponses, plain: Tensor, attentions: Sequence[str]
) -> Route:
    def packed_rows() -> Tensor:
        use_packed_attention(model)
        return packed_logps(model, packed)

    problem = _problem(packed_rows, plain)
    if not problem:
        return Route("packed")
    reason = problem
    unpacked: tuple[Rows, ...] = ("padded", "by_length")
    for rows, attention in product(unpacked, attentions):

        def unpacked_rows(rows: Rows = rows, attention: str = attention) -> Tensor:
            model.set_attn_implementation(attention)
            return unpacked_logps(model, packed, by_length=rows == "by_length")

        problem = _problem(unpacked_rows, plain)
        if not problem:
            return Route(rows, attention, reason)
    return Route("refused", reason=f"packed rows: {reason}; one row per response: {problem}")


def _problem(compute: Callable[[], Tensor], plain: Tensor) -> str:
    """What is wrong with log-probs; empty if they agree with the plain ones."""
    try:
        sums = compute()
    except Exception as error:  # any class of decoder may fail in any way
        return _short(error)
    if _agrees(sums, plain):
        return ""
    return f"log-probs differ by {(sums - plain).abs().max():.2g} nats from those of plain logits"


def _agrees(sums: Tensor, plain: Tensor) -> bool:
    return bool(sums.isfinite().all()) and bool((sums - plain).abs().max() <= TOLERANCE)


def _batch() -> tuple[list[list[int]], list[list[list[int]]]]:
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        drawn = torch.randint(FIRST_TOKEN, VOCABULARY, (count,), generator=generator)
        return [int(token) for token in drawn]

    return [tokens(n) for n in _PROMPTS], [[tokens(n) for n in counts] for counts in _RESPONSES]


def _plain(model: Any, prompts: list[list[int]], responses: list[list[list[int]]]) -> Tensor:
    """[B, M] summed log-probs from the logits of each sequence by itself."""
    return torch.tensor(
        [
            [_plain_sum(model, prompt, response) for response in own]
            for prompt, own in zip(prompts, responses, strict=True)
        ]
    )


def _plain_sum(model: Any, prompt: list[int], response: list[int]) -> float:
    tokens = torch.tensor([prompt + response])
    logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
    logps = logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0]
    return float(logps[len(prompt) - 1 :].sum())


def _is_causal(model: Any, tokens: list[int]) -> bool:
    """Whether logits stay as they are when the last token changes."""
    other = [
        *tokens[:-1],
        FIRST_TOKEN + (tokens[-1] + 1 - FIRST_TOKEN) % (VOCABULARY - FIRST_TOKEN),
    ]
    ours, theirs = (
        model(input_ids=torch.tensor([row]), use_cache=False).logits[0, :-1].float()
        for row in (tokens, other)
    )
    return bool((ours - theirs).abs().max() <= TOLERANCE)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tiny matrices are multiplied faster by one thread, above all where cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence transformers: what it says about a tiny copy does not concern the decoder."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
