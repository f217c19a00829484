"""Self-play: negatives are the policy's own wrong answers, the same on a resumed run."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from raypo.config import AlignConfig, parse_config
from raypo.errors import InputError, StoppedRun
from raypo.io.progress import no_progress
from raypo.io.run_folder import read_metrics
from raypo.policy.scoring import score_responses
from raypo.training import negatives_and_reference
from raypo.training.job import build_job, check_inputs
from raypo.training.local import train_locally
from raypo.training.reference import PrecomputedReference
from raypo.training.trainer import fit

from .inputs import settings
from .test_resume import Interrupted, without_timing

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of scores for each test."""
    monkeypatch.setattr(negatives_and_reference, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "reference"


def config(inputs, output, objective="s-dpo", sampling="self-play", rounds=1, **changes):
    data, recommender, adapter = inputs
    values = settings(data, output) | {"recommender": recommender, "negatives": 3}
    values["policy"] = values["policy"] | {"adapter": adapter}
    values |= {"objective": {"name": objective}, "negative_sampling": sampling}
    values |= {"negative_options": {"self_play_rounds": rounds}} | changes
    return parse_config(AlignConfig, values, "test")


class Recorder:
    """A reporter that keeps nothing but the negatives of each step."""

    def __init__(self, job):
        self.job, self.drawn = job, []

    def metrics(self, values):
        step = values["step"] - 1
        epoch, batches = self.job.sampler.rank_batches(step, self.job.rank)
        rows = [row for parts in batches for part in parts for row in part]
        batch = self.job.make_batch(epoch, rows)
        self.drawn.append([rows, batch.rejected_items.tolist()])

    def checkpoint(self, values, write):
        self.metrics(values)


def policy_scores(job, epoch, row):
    """Log-probs of a row's candidates by the unpacked scorer of evaluation, and the candidates."""
    maker = job.make_batch
    listed = maker.candidates.draw(row, epoch)
    users = maker.encoder.encode([maker.rows.history(row)], [listed])
    model = job.engine.policy.eval().model
    scores = score_responses(model, users.prompts, users.responses, maker.pad_token_id, 1)
    job.engine.policy.train()
    return dict(zip(listed, scores[0].tolist(), strict=True))


@pytest.mark.parametrize("objective", ["s-dpo", "napo"])
def test_negatives_are_the_wrong_answers_that_the_policy_prefers(inputs, tmp_path, objective):
    made = build_job(config(inputs, tmp_path / "run", objective), 0, no_progress)
    for epoch, row in [(0, 3), (1, 3), (1, 7)]:
        row = made.sampler.rank_batches(epoch * 6, 0)[1][0][0][row % 4]
        scores = policy_scores(made, epoch, row)
        target = int(made.make_batch.rows.targets[row])
        wrong = sorted(scores.keys() - {target}, key=lambda item: -scores[item])
        batch = made.make_batch(epoch, [row])
        assert batch.rejected_items.tolist() == [wrong[:3]]
        if objective == "s-dpo":
            chosen, rejected = made.reference(batch)
            assert chosen.tolist() == pytest.approx([scores[target]], abs=1e-4)
            assert rejected[0].tolist() == pytest.approx(
                [scores[item] for item in wrong[:3]], abs=1e-4
            )


def test_each_round_begins_with_the_scores_of_the_current_policy(inputs, tmp_path):
    made = build_job(config(inputs, tmp_path / "run", rounds=3), 0, no_progress)
    assert [made.self_play.steps_of(number) for number in range(3)] == [
        range(0, 4),
        range(4, 8),
        range(8, 12),
    ]
    checked = []

    class Checking(Recorder):
        def metrics(self, values):
            super().metrics(values)
            if values["step"] in (4, 8):  # the policy that the next round begins with
                epoch, batches = self.job.sampler.rank_batches(values["step"], 0)
                row = batches[0][0][0]
                checked.append((epoch, row, policy_scores(self.job, epoch, row)))
            if values["step"] in (5, 9):
                epoch, row, scores = checked[-1]
                listed = self.job.make_batch.candidates.negatives(row, epoch, 19)
                kept = self.job.self_play(epoch, row, np.array(listed))
                assert kept.tolist() == pytest.approx([scores[item] for item in listed], abs=1e-4)
                assert values["negative_sampling/round"] == values["step"] // 4 + 1

    fit(made, Checking(made), no_progress)
    assert len(checked) == 2


def interrupt_at(step):
    def progress(done, total, note=""):
        if done == step and note.startswith("loss"):
            raise Interrupted

    return progress


@pytest.mark.parametrize(
    ("objective", "rounds", "changes"),
    [
        ("s-dpo", 1, {}),
        ("s-dpo", 3, {}),
        ("s-dpo", 2, {"reference": "on-the-fly"}),
        ("napo", 5, {"negative_options": {"self_play_rounds": 5, "self_play_temperature": 1.0}}),
    ],
)
@pytest.mark.parametrize("stopped_after", [5, 8, 10])
def test_a_resumed_run_has_the_metrics_and_negatives_of_a_whole_one(
    inputs, tmp_path, cache, objective, rounds, changes, stopped_after
):
    train_locally(config(inputs, tmp_path / "whole", objective, rounds=rounds, **changes))
    stopped = config(inputs, tmp_path / "stopped", objective, rounds=rounds, **changes)
    with pytest.raises(Interrupted):
        train_locally(stopped, interrupt_at(stopped_after))
    train_locally(stopped)
    lines = [read_metrics(tmp_path / name) for name in ("whole", "stopped")]
    assert [line["step"] for line in lines[1]] == list(range(1, 13))
    for one, other in zip(*lines, strict=True):
        assert without_timing(other) == pytest.approx(without_timing(one), rel=1e-6)
        assert one["negative_sampling/self-play"] == 1
    ends = [
        next((tmp_path / name / "checkpoints").glob("step-00000012/self-play-*"))
        for name in ("whole", "stopped")
    ]
    assert ends[0].name == ends[1].name == f"self-play-round-{rounds - 1}.safetensors"
    kept = [PrecomputedReference.load(file).tensors() for file in ends]
    assert kept[0]["keys"].equal(kept[1]["keys"])
    assert kept[0]["logps"].allclose(kept[1]["logps"], atol=1e-5)
    assert len(list(cache.iterdir())) == 1  # of the initial policy, found again


def test_a_resumed_run_keeps_its_scores_where_the_cache_is_gone(inputs, tmp_path, cache):
    stopped = config(inputs, tmp_path / "run", "napo", rounds=2)
    with pytest.raises(Interrupted):
        train_locally(stopped, interrupt_at(9))
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-00000008")
    (file,) = checkpoint.glob("self-play-*")
    stored = PrecomputedReference.load(file)
    for one in cache.iterdir():
        one.unlink()
    made = build_job(stopped, 0, no_progress, checkpoint)
    assert made.self_play.round == 1
    (epoch, row), *_ = (tuple(key) for key in stored.tensors()["keys"].tolist())
    assert made.self_play(epoch, row, np.empty(0)).tolist() == stored.of((epoch, row))[1:].tolist()
    file.unlink()
    with pytest.raises(InputError, match=r"self-play-round-1\.safetensors: cannot be read"):
        build_job(stopped, 0, no_progress, checkpoint)


def test_metrics_say_which_sources_a_mixture_has(inputs, tmp_path):
    weights = {"self-play": 1, "recommender": 1, "similar": 1, "popular": 1}
    train_locally(config(inputs, tmp_path / "run", sampling=weights))
    for line in read_metrics(tmp_path / "run"):
        shares = {name: line[f"negative_sampling/{name}"] for name in weights}
        assert shares == dict.fromkeys(weights, 0.25)


def test_scores_that_are_not_finite_stop_the_run(inputs, tmp_path, monkeypatch):
    original = negatives_and_reference.compute_reference

    def broken(*given):
        scores = original(*given)
        next(iter(scores._values.values()))[2] = float("nan")
        return scores

    monkeypatch.setattr(negatives_and_reference, "compute_reference", broken)
    with pytest.raises(StoppedRun, match="self-play, round 1: the policy's log-probs"):
        train_locally(config(inputs, tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 13}, "negative_options.self_play_rounds: 13 is more than the run's 12 steps"),
        ({"negatives": 20}, "negatives: 20 is more than the candidate sets hold"),
        (
            {"sampling": "uniform", "negatives_from": "catalogue", "negatives": 60},
            "negatives: 60 is more than every user has unseen",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(inputs, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        check_inputs(config(inputs, tmp_path / "run", **changes))


def test_a_recommender_of_other_items_is_refused(inputs, tmp_path):
    data, recommender, adapter = inputs
    other = tmp_path / "other"
    other.mkdir()
    values = json.loads((recommender / "model.json").read_text())
    (other / "model.json").write_text(json.dumps(values | {"num_items": 7}))
    weights = load_file(recommender / "model.safetensors")
    weights["items.weight"] = weights["items.weight"][:7].clone()
    save_file(weights, other / "model.safetensors")
    for sampling in ("recommender", "similar"):
        chosen = config((data, other, adapter), tmp_path / "run", sampling=sampling)
        with pytest.raises(InputError, match="has 7 items, but the data set has 60"):
            check_inputs(chosen)


def run_rank(rank, world_size, folder, inputs, cluster, sampling):
    """Train one rank of several, and keep its negatives and losses in `folder`."""
    torch.set_num_threads(1)
    negatives_and_reference.cache_folder = lambda: Path(folder) / f"cache-{world_size}"
    dist.init_process_group(
        "gloo", f"file://{folder}/rendezvous-{world_size}", rank=rank, world_size=world_size
    )
    # Read by DeepSpeed.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29512"}
    values = {"cluster": cluster | {"workers": world_size, "launcher": "ray"}}
    values |= {"micro_batch_size": 4 // world_size}
    chosen = config(inputs, Path(folder) / "run", "s-dpo", sampling, rounds=2, **values)
    made = build_job(chosen, rank, no_progress)
    recorder = Recorder(made)
    fit(made, recorder, no_progress)
    torch.save(recorder.drawn, f"{folder}/{world_size}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("sampling", "cluster"),
    [
        ("self-play", {"engine": "torch"}),
        ({"self-play": 2, "similar": 1, "uniform": 1}, {"engine": "torch"}),
        ("self-play", {"engine": "deepspeed", "zero_stage": 3}),
    ],
    ids=["torch", "mixture", "zero3"],
)
def test_two_ranks_draw_the_negatives_of_one(inputs, tmp_path, sampling, cluster):
    for world_size in (1, 2):
        given = (world_size, str(tmp_path), inputs, cluster, sampling)
        mp.spawn(run_rank, given, nprocs=world_size, join=True)
    one, *two = (
        torch.load(tmp_path / f"{size}-{rank}.pt", weights_only=True)
        for size, rank in ((1, 0), (2, 0), (2, 1))
    )
    assert len(one) == 12
    for step, (rows, drawn) in enumerate(one):
        assert rows == two[0][step][0] + two[1][step][0]
        assert drawn == two[0][step][1] + two[1][step][1]


def test_an_interruption_in_between_leaves_no_partial_scores(inputs, tmp_path, cache):
    def stop(done, total, note=""):
        if note.startswith("self-play scores") and done == 3:
            raise Interrupted

    run = config(inputs, tmp_path / "run")
    with contextlib.suppress(Interrupted):
        train_locally(run, stop)
    assert not cache.exists() or not list(cache.iterdir())
    train_locally(run)
    assert len(read_metrics(tmp_path / "run")) == 12
