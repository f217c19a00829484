"""Benchmarks compare computations of the same numbers, and print what they measured."""

import math

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from raypo.bench.measure import measure_in_turn
from raypo.bench.objectives import ObjectiveGrid, bench_objectives
from raypo.bench.policy import (
    VARIANTS,
    PolicySettings,
    bench_policy,
    naive_logps,
    repeated_rows,
    response_logits_only_logps,
)
from raypo.cli.main import app
from raypo.data.tokenisation import EncodedUsers
from raypo.errors import InputError
from raypo.policy import pack_responses, response_logps
from tests.policy.test_logps import PROMPTS, RESPONSES, lora_model

USERS = EncodedUsers(PROMPTS, RESPONSES)


def test_all_variants_compute_the_same_log_probs():
    model = lora_model("llama")
    rows = repeated_rows(USERS, 0, torch.device("cpu"))
    naive, selected = naive_logps(model, *rows), response_logits_only_logps(model, *rows)
    packed = response_logps(model, pack_responses(PROMPTS, RESPONSES, 0)).sums.flatten()
    torch.testing.assert_close(selected, naive, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed, naive, atol=1e-5, rtol=1e-5)


def test_multiply_adds_count_distinct_tokens_and_predicting_positions():
    model = lora_model("llama")
    costs = bench_policy(model, USERS, 0, PolicySettings([2], repeats=1))
    assert [cost.variant for cost in costs] == ["sft", "sft_plain", *VARIANTS]
    body = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)  # two layers: q, o; k, v; the feed-forward
    head = 97 * 32
    # Tokens: prompts 5 + 3, and of the responses all but the last ones, common prefixes once.
    # Predicting positions: all of those tokens of responses, and one for each prompt.
    all_responses = (8 + 4 + 3) * body + (4 + 3 + 2) * head
    first_response = (8 + 2 + 1) * body + (2 + 1 + 2) * head
    assert costs[-1].relative_macs == pytest.approx(all_responses / first_response)
    assert costs[0].relative_macs == 1 and costs[0].relative_time == 1
    assert costs[2].speedup == 1  # naive itself


def test_every_round_but_the_first_counts_and_memory_is_measured():
    made = []

    def allocate():
        made.append(torch.ones(8 << 20).sum())  # 32 MiB, freed again

    measured = measure_in_turn({"one": allocate}, torch.device("cpu"), repeats=3)["one"]
    assert len(made) == 4 and len(measured.seconds) == 3
    assert measured.best <= measured.median
    assert measured.peak_bytes is None or measured.peak_bytes > 24 << 20


def test_objectives_are_measured_once_per_size_and_rho():
    cpu = torch.device("cpu")
    grid = ObjectiveGrid(["napo", "s-dpo"], [4, 8], [2], [0.0, 1.0])
    costs = list(bench_objectives(grid, cpu, repeats=1))
    cases = [cost.case for cost in costs]
    rows = [(case.objective, case.num_users, case.rho, case.set_size) for case in cases]
    assert ("napo", 8, 1.0, 16) in rows and ("s-dpo", 8, 0.0, 2) in rows
    assert len(rows) == 6
    assert all(math.isfinite(cost.measurement.median) for cost in costs)


def test_a_rank_of_a_larger_batch_is_measured_alone():
    grid = ObjectiveGrid(["napo", "s-dpo"], [8, 16], [2], [0.5], num_similar=[3], rank_users=4)
    costs = list(bench_objectives(grid, torch.device("cpu"), repeats=1))
    rows = [(cost.case.objective, cost.case.num_users, cost.case.set_size) for cost in costs]
    assert rows == [("napo", 8, 8), ("s-dpo", 8, 2), ("napo", 16, 8), ("s-dpo", 16, 2)]
    with pytest.raises(InputError, match="10 users are not a multiple of a rank's 4"):
        ObjectiveGrid(["napo"], [10], [2], [0.5], rank_users=4).cases()
    with pytest.raises(InputError, match="8 similar users: there are 7 others"):
        ObjectiveGrid(["napo"], [8], [2], [0.5], num_similar=[8]).cases()


@pytest.mark.slow
def test_the_command_writes_table_and_picture(tmp_path, monkeypatch):
    arguments = ["bench", "policy", "--model", "tiny-random", "--negatives", "2", "--repeats", "1"]
    files = ["--output", str(tmp_path / "a.csv"), "--plot", str(tmp_path / "a.png")]
    answer = CliRunner().invoke(app, [*arguments, *files])
    assert answer.exit_code == 0, answer.output
    assert "response_logits_only" in answer.output  # whole, however many columns there are
    written = pd.read_csv(tmp_path / "a.csv")
    assert list(written["variant"]) == ["sft", "naive", "response_logits_only", "packed"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_more_negatives_than_candidates_come_from_the_catalogue(inputs, tmp_path):
    file = tmp_path / "costs.csv"
    arguments = ["--model", "tiny-random", "--data", str(inputs[0]), "--negatives", "3,30"]
    more = ["--variants", "packed", "--repeats", "1", "--output", str(file)]
    answer = CliRunner().invoke(app, ["bench", "policy", *arguments, *more])
    assert answer.exit_code == 0, answer.output
    macs = pd.read_csv(file)["MACs / SFT MACs"]
    assert 1 < macs[1] < macs[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["policy", "--negatives", "3,x"], "--negatives '3,x': expected whole numbers"),
        (
            ["policy", "--variants", "packt"],
            "--variants 'packt': expected of naive, response_logits_only, packed, packed_plain, "
            "two_passes",
        ),
        (["scorer", "--modes", "packed,vlm"], "--modes 'vlm': expected of packed, vllm"),
        (["objectives", "--names", "nap"], "--names 'nap'"),
        (["objectives", "--device", "tpu"], "--device 'tpu'"),
    ],
)
def test_wrong_options_are_named(arguments, message):
    answer = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(answer.exception, InputError)
    assert message in str(answer.exception)


def test_a_catalogue_ranks_alike_as_a_tree_and_as_a_list(inputs, tmp_path):
    file = tmp_path / "catalogue.csv"
    arguments = ["--model", "tiny-random", "--data", str(inputs[0]), "--sizes", "20,1000"]
    more = ["--users", "2", "--dtype", "float32", "--budget", "64", "--output", str(file)]
    answer = CliRunner().invoke(app, ["bench", "catalogue", *arguments, *more])
    assert answer.exit_code == 0, answer.output
    table = pd.read_csv(file)
    assert table["titles"].tolist() == [20, 60]
    assert (table["tokens, tree"] < table["tokens, list"]).all()
    assert (table["largest difference"] < 1e-4).all()
