"""Sharing on many ranks, on paper: the bytes are the code's own, the times are worked by hand."""

import math

import pandas as pd
import pytest
from typer.testing import CliRunner

from raypo.bench.latency import LatencySettings, bench_latency
from raypo.bench.network import Network, NetworkSettings, predict_sharing, step_messages, traffic
from raypo.bench.roofline import GPUS, Decoder, RooflineSettings, balance, step_seconds
from raypo.bench.simulated_ranks import Message
from raypo.cli.main import app
from raypo.errors import InputError


@pytest.mark.parametrize("num_ranks", [2**power for power in range(1, 11)])
def test_a_step_sends_what_the_contract_says(num_ranks):
    b, n, d = 4, 3, 8
    # docs/objectives.md; the last is the reduction of the gradient for all users' rewards.
    assert step_messages("napo", num_ranks, b, n, d) == [
        Message("gather", 16 + b * (4 * d + 12 * n)),
        Message("gather", 24 + 4 * b * n),
        Message("reduction", 120),
        Message("reduction", 4 * num_ranks * b * n),
    ]
    assert step_messages("s-dpo", num_ranks, b, n, d) == [Message("reduction", 120)]


def test_traffic_by_hand():
    gather, reduction = Message("gather", 100), Message("reduction", 800)
    assert traffic(gather, 8, "ring") == (7, 700)
    assert traffic(gather, 8, "tree") == (3, 700)
    assert traffic(reduction, 8, "ring") == (14, 1400)
    assert traffic(reduction, 8, "tree") == (6, 1600)
    assert traffic(gather, 5, "tree") == (3, 400)  # not a power of two: one more level
    for message in (gather, reduction):
        for algorithm in ("ring", "tree"):
            assert traffic(message, 1, algorithm) == (0, 0)
    assert Network(bandwidth=1e3, latency=0.5).seconds(gather, 8, "tree") == pytest.approx(2.2)


def test_sharing_is_what_it_adds_to_the_baseline():
    network = Network(bandwidth=1e6, latency=1e-3)
    settings = NetworkSettings("napo", "s-dpo", [4], 4, 3, 8, network, compute_seconds=1.0)
    (row,) = predict_sharing(settings)
    sent = 3 * (16 + 4 * (32 + 36)) + 3 * (24 + 48) + 2 * 192 * 3 / 4
    assert row["KiB sent, ring"] == pytest.approx(sent / 1024, abs=0.1)
    assert (row["messages, ring"], row["messages, tree"]) == (3 + 3 + 6, 2 + 2 + 4)
    assert row["ms, ring"] == pytest.approx(12 + sent / 1e3, rel=1e-2)
    assert (row["collectives"], row["without sharing"]) == (4, 1)


def test_the_roofline_by_hand():
    decoder = Decoder(hidden=10, intermediate=20, layers=2, key_value=10, vocabulary=100, rank=3)
    # q, k, v, o: 10 x 10 each; gate, up, down: 10 x 20 each.
    assert decoder.parameters == 2 * (400 + 600) + 2 * 1000
    assert decoder.adapter_parameters == 2 * 3 * (4 * 20 + 3 * 30)
    assert decoder.flops() == 4 * 3000 + 6 * 1020
    assert decoder.flops(recomputed=True) == 6 * 3000 + 8 * 1020
    assert decoder.memory_bytes(5) == 4 * 3000 + 2 * 34 * 10 * 2 * 5
    assert Decoder().parameters == pytest.approx(6.74e9, rel=1e-3)  # arXiv 2307.09288's 7B


def test_compute_takes_longest_above_the_balance():
    settings = RooflineSettings(Decoder(), GPUS["H100"], Network(25e9, 0.0), num_ranks=8)
    # 4 P FLOPs a token, and two gathers of 7/8 of 2 P bytes: peak / bandwidth x 7/8, roughly.
    tokens = balance(settings)["ZeRO-3 gathers"]
    assert tokens == pytest.approx(989e12 / 25e9 * 7 / 8, rel=0.02)
    for factor, binds in ((0.9, "ZeRO-3 gathers"), (1.1, "compute")):
        users = int(factor * tokens / settings.tokens_per_user)
        peak = GPUS["H100"].__class__(989e12, 3.35e12, utilisation=1.0)
        sized = RooflineSettings(Decoder(), peak, Network(25e9, 0.0), num_ranks=8, users=users)
        parts = step_seconds(sized)
        assert max(parts, key=parts.get) == binds
    assert math.isfinite(balance(settings)["memory"])


@pytest.mark.slow
def test_added_latency_is_paid_by_each_collective():
    settings = LatencySettings(["s-dpo", "napo"], 2, 2, 2, [0.0, 0.05], repeats=2)
    rows = list(bench_latency(settings))
    assert [row["collectives of the objective"] for row in rows] == [1, 4, 1, 4]
    assert rows[2]["ms in them"] >= 50 and rows[3]["ms in them"] >= 200


def test_the_commands_write_their_tables(tmp_path):
    file = tmp_path / "table.csv"
    commands = (["network", "--ranks", "2,4"], ["roofline", "--ranks", "2", "--users", "1,2"])
    for command in commands:
        answer = CliRunner().invoke(app, ["bench", *command, "--output", str(file)])
        assert answer.exit_code == 0, answer.output
        assert len(pd.read_csv(file)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["network", "--gpu", "A1"], "--gpu 'A1': expected of H100, H200"),
        (["network", "--objective", "sft"], "--objective 'sft'"),
        (["latency", "--milliseconds", "1,-2"], "--milliseconds '1,-2': expected numbers from 0"),
        (["latency", "--milliseconds", "x"], "--milliseconds 'x'"),
    ],
)
def test_wrong_options_are_named(arguments, message):
    answer = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(answer.exception, InputError)
    assert message in str(answer.exception)
