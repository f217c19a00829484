"""`raypo evaluate catalogue=…` ranks what it says, as each title would rank by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from raypo.assets import resolve_model
from raypo.config import PolicyConfig
from raypo.data.dataset import load_dataset
from raypo.evaluation.catalogue.ranked import read_ranked
from raypo.orchestration.evaluation_setup import recorded_encoder
from raypo.policy.adapters import load_policy
from tests.orchestration.refusals import refusal
from tests.training.inputs import settings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
RAYPO = str(Path(sys.executable).with_name("raypo"))


def raypo(*arguments: object) -> None:
    command = [RAYPO, *map(str, arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.fixture(scope="module")
def sft(inputs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy whose prompts name no candidates."""
    from raypo.config import SftConfig, parse_config
    from raypo.training.local import train_locally

    folder = tmp_path_factory.mktemp("history") / "sft"
    values = settings(inputs[0], folder)
    values["policy"] |= {"prompt": "history"}
    train_locally(parse_config(SftConfig, values, "test"))
    return folder


def command(data: Path, output: Path, *more: object) -> list[object]:
    policy = ["policy.model=tiny-random", "policy.dtype=float32"]
    return ["evaluate", f"data={data}", f"output={output}", *policy, "scorer.workers=1", *more]


@torch.no_grad()
def expected_scores(data: Path, adapter: Path, row: pd.Series) -> np.ndarray:
    """Log-prob of every title after a row's prompt, from plain logits."""
    config = PolicyConfig(model="tiny-random", dtype="float32", adapter=adapter)
    folder = resolve_model("tiny-random")
    model = load_policy(config, folder, seed=0).eval()
    _, encoder = recorded_encoder(config, folder, [adapter], load_dataset(data))
    prompt = encoder.prompt(row["history"], [])
    scores = []
    for item in range(len(encoder.titles)):
        title = encoder.response(item)
        logps = model(input_ids=torch.tensor([prompt + title])).logits[0].log_softmax(dim=-1)
        steps = range(len(prompt) - 1, len(prompt) + len(title) - 1)
        scores.append(sum(float(logps[s, t]) for s, t in zip(steps, title, strict=True)))
    return np.array(scores)


@pytest.mark.usefixtures("shared_ray")
def test_a_policy_ranks_the_whole_catalogue(
    inputs: tuple[Path, Path, Path], sft: Path, tmp_path: Path
) -> None:
    data, adapter = inputs[0], sft / "adapter"
    asked = command(data, tmp_path / "all", f"policy.adapter={adapter}", "catalogue=all",
                    "scorer.token_budget=64", "max_rows=6", "rank_seen=false")  # fmt: skip
    answer = subprocess.run([RAYPO, *map(str, asked)], capture_output=True, text=True, check=True)
    ranked = read_ranked(tmp_path / "all")
    num_items = load_dataset(data).num_items
    assert (ranked["num_ranked"] == num_items - ranked["history"].map(lambda h: len(set(h)))).all()
    row = ranked.iloc[0]
    scores = expected_scores(data, adapter, row)
    allowed = np.setdiff1d(np.arange(num_items), row["history"])
    np.testing.assert_allclose(row["scores"], -np.sort(-scores[allowed])[:20], atol=1e-4)
    placed = ranked[ranked["above"].notna()].iloc[0]
    scores = expected_scores(data, adapter, placed)
    allowed = np.setdiff1d(np.arange(num_items), placed["history"])
    assert placed["above"] == (scores[allowed] > scores[placed["target"]]).sum()
    in_history = [one.target in one.history for one in ranked.itertuples()]
    assert ranked["above"].isna().tolist() == in_history
    assert f"{sum(in_history)} of 6 targets are in their own history" in answer.stderr
    metrics = json.loads((tmp_path / "all" / "metrics.json").read_text())["catalogue"]
    assert metrics["HitRatio@10"] == pytest.approx((ranked["above"] < 10).fillna(False).mean())


@pytest.mark.usefixtures("shared_ray")
def test_a_beam_as_wide_as_the_catalogue_gives_the_whole_ranking(
    inputs: tuple[Path, Path, Path], sft: Path, tmp_path: Path
) -> None:
    shared = [f"policy.adapter={sft / 'adapter'}", "max_rows=6"]
    for kind, scope in (("packed", "all"), ("packed", "beam:60"), ("vllm", "beam:60")):
        output = tmp_path / f"{kind}-{scope}"
        pool = [f"scorer.kind={kind}", "scorer.workers=1"]
        raypo(*command(inputs[0], output, *shared, *pool, f"catalogue={scope}"))
    whole = read_ranked(tmp_path / "packed-all")
    for kind in ("packed", "vllm"):
        found = read_ranked(tmp_path / f"{kind}-beam:60")
        assert whole["num_ranked"].tolist() == found["num_ranked"].tolist()
        assert whole["above"].tolist() == found["above"].tolist()
        for every, some in zip(whole["scores"], found["scores"], strict=True):
            np.testing.assert_allclose(some, every, atol=1e-4)


@pytest.mark.usefixtures("shared_ray")
def test_a_policy_ranks_what_was_retrieved(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, recommender, adapter = inputs
    of_recommender = tmp_path / "recommender"
    retrieved = [f"retrievers={recommender}", "catalogue=retrieved:8", "max_rows=20"]
    raypo("evaluate", f"data={data}", f"output={of_recommender}", f"recommender={recommender}",
          *retrieved)  # fmt: skip
    policy = tmp_path / "policy"
    raypo(*command(data, policy, f"adapters={{base: null, sft: {adapter}}}", *retrieved))
    best = read_ranked(of_recommender)
    for name in ("base", "sft"):
        ranked = read_ranked(policy / name)
        assert ranked["row"].tolist() == best["row"].tolist()
        pairs = zip(ranked["items"], best["items"], strict=True)
        assert all(set(one) == set(other) and len(one) == 8 for one, other in pairs)
        assert ranked["above"].isna().tolist() == best["above"].isna().tolist()
        summary = json.loads((policy / name / "metrics.json").read_text())["catalogue"]
        assert summary["Retrieved"] == ranked["above"].notna().mean()
        assert summary["HitRatio@10"] == summary["Retrieved"]  # of eight, all are among ten
    everything = tmp_path / "everything"
    raypo("evaluate", f"data={data}", f"output={everything}", f"recommender={recommender}",
          "catalogue=all", "max_rows=20")  # fmt: skip
    whole = read_ranked(everything)
    for some, all_ in zip(best["items"], whole["items"], strict=True):
        assert some.tolist() == all_[:8].tolist()
    # In this data people repeat: items of the history are ranked too.
    assert (whole["num_ranked"] == load_dataset(data).num_items).all()
    assert json.loads((everything / "evaluated.json").read_text())["rank_seen"] is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["catalogue=retrieved:5"], "give retrievers"),
        (["catalogue=some"], "catalogue"),
        (["catalogue=all", "answers=[generate]"], "answers=[likelihood]"),
        (["catalogue=all", "num_permutations=2"], "num_permutations"),
        (["catalogue=all", "scorer.kind=vllm"], "use packed"),
        (
            ["catalogue=beam:5", "scorer.kind=vllm", "scorer.length_normalised=true"],
            "length_normalised",
        ),
        (["catalogue=beam:5", "heuristic=popularity"], "language models"),
        (["catalogue=all"], "policy.prompt=history"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    inputs: tuple[Path, Path, Path],
    tmp_path: Path,
    changes: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refusal(command(inputs[0], tmp_path / "out", *changes), monkeypatch, capsys)
