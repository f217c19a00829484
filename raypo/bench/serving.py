"""The highest rate of requests that packed ranking and vLLM answer in time, side by side."""

from __future__ import annotations

from dataclasses import replace

from raypo.bench.open_loop import Percentiles, Search, highest_rate, search_rate
from raypo.bench.scorer import ENGINES, ScorerSettings, load_rounds
from raypo.data.tokenisation import EncodedUsers
from raypo.io.progress import Progress, no_progress

MODES = ("packed", "vllm")


def bench_serving(
    settings: ScorerSettings, search: Search, progress: Progress = no_progress
) -> list[dict[str, object]]:
    """Send an open-loop stream of requests at growing rates to each way of ranking.

    Both take requests as they come, answer what waits together, and give the log-probs of every
    candidate. vLLM keeps each prompt in its prefix cache between its candidates. Users repeat only
    after all others, and the cache of vLLM is as large as in `raypo evaluate`.

    Args:
        settings: model, users and candidates; `repeats` is not used.
        search: rates and the bound.
        progress: receives each rate's 99th percentile.
    """
    inputs, (users,) = load_rounds(replace(settings, repeats=0))
    found: dict[str, list[Percentiles]] = {}
    for mode in settings.modes:
        engine = ENGINES[mode](inputs)

        def answer(numbers: range, engine: object = engine) -> None:
            engine.answer(_chosen(users, numbers))  # type: ignore[attr-defined]

        answer(range(settings.batch_size))  # warms up

        def report(one: Percentiles, mode: str = mode) -> None:
            progress(0, 1, f"{mode}: {one.rate:.2f} users/s, p99 {one.p99:.2f} s")

        found[mode] = search_rate(search, answer, report)
        engine.close()
    highest = {mode: highest_rate(own, search.bound_s) for mode, own in found.items()}
    return [
        _row(mode, one)
        | {
            f"highest users/s with p99 <= {search.bound_s:g} s": round(highest[mode], 2),
            "highest / vLLM's": _ratio(highest[mode], highest.get("vllm")),
        }
        for mode, own in found.items()
        for one in own
    ]


def _ratio(rate: float, other: float | None) -> float | None:
    return round(rate / other, 2) if other else None


def _row(mode: str, one: Percentiles) -> dict[str, object]:
    return {
        "mode": mode,
        "users/s": round(one.rate, 2),
        "requests": one.num_requests,
        "p50 s": round(one.p50, 2),
        "p95 s": round(one.p95, 2),
        "p99 s": round(one.p99, 2),
    }


def _chosen(users: EncodedUsers, numbers: range) -> EncodedUsers:
    count = len(users.prompts)
    chosen = [number % count for number in numbers]
    return EncodedUsers(
        [users.prompts[number] for number in chosen],
        [users.responses[number] for number in chosen],
    )
