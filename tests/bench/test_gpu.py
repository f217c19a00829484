"""`raypo bench gpu`, dry: every measurement, what does not fit, and going on where a run ended."""

import json

import pytest
import torch
from typer.testing import CliRunner

from raypo.bench.gpu import GpuSettings, bench_gpu, steps
from raypo.bench.gpu.flops import step_flops, visible_pairs
from raypo.bench.gpu.policies import Lora, RandomPolicy, make_policy
from raypo.cli.main import app
from raypo.errors import InputError
from raypo.policy import pack_responses
from raypo.policy.attention_masks import Layout

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def policy():
    return make_policy("random-tiny", CPU, 4, 3, seed=0, lora=Lora(rank=2))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    output = tmp_path_factory.mktemp("gpu") / "run"
    arguments = ["bench", "gpu", "--device", "cpu", "--model", "tiny", "--output", str(output)]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    return output


def test_every_measurement_is_made_and_reported(measured):
    record = json.loads((measured / "gpu.json").read_text())
    assert not [one for one in record["measurements"].values() if "problem" in one]
    kinds = {one["kind"] for one in record["measurements"].values()}
    assert kinds == {"parity", "products", "steps", "limits", "kernels", "scoring"}
    parity = {row["compared"]: row for row in record["measurements"]["parity"]["rows"]}
    for name, row in parity.items():
        exact = name.endswith("float32")
        assert row["logps"] < (1e-5 if exact else 1e-2), name
        assert row["gradients"] is None or row["gradients"] < (1e-4 if exact else 0.05), name
    report = (measured / "gpu.md").read_text()
    assert "10 of 10" not in report and "8 of 8 measurements" in report
    assert report.count("naive_recomputed") == 1 + 3  # what it means, and a row for each number


def test_a_run_goes_on_where_one_ended(measured, tmp_path):
    whole = json.loads((measured / "gpu.json").read_text())
    part = tmp_path / "gpu.json"
    kept = {name: one for name, one in whole["measurements"].items() if name != "products"}
    part.write_text(json.dumps(whole | {"measurements": kept}))
    begun = []
    bench_gpu(tmp_path, GpuSettings.dry(), CPU, 1, lambda done, total, note="": begun.append(note))
    assert begun == ["products", ""]
    again = json.loads(part.read_text())["measurements"]
    assert again.keys() == whole["measurements"].keys()
    assert all(again[name] == kept[name] for name in kept)


def test_no_measurement_begins_after_the_time(tmp_path):
    record = bench_gpu(tmp_path, GpuSettings.dry(), CPU, minutes=0)
    assert not record.measurements
    assert "0 of 8 measurements" in (tmp_path / "gpu.md").read_text()


def test_a_record_of_another_machine_is_refused(measured, tmp_path):
    whole = json.loads((measured / "gpu.json").read_text())
    whole["head"]["device"] = "another"
    (tmp_path / "gpu.json").write_text(json.dumps(whole))
    with pytest.raises(InputError, match="measured with another device"):
        bench_gpu(tmp_path, GpuSettings.dry(), CPU, 1)


def test_what_does_not_fit_is_tried_with_fewer_users_and_recorded(policy, monkeypatch):
    step = RandomPolicy.step

    def with_little_memory(self, variant, users, negatives):
        if variant == "naive_recomputed":
            raise RuntimeError("no kernel\nfor this device")
        if users > (1 if variant == "naive" else 0):
            raise torch.cuda.OutOfMemoryError
        return step(self, variant, users, negatives)

    monkeypatch.setattr(RandomPolicy, "step", with_little_memory)
    variants = ("naive_recomputed", "naive", "packed")
    failed, naive, packed = steps.step_rows(policy, 3, variants, users=4, repeats=1, peak=1e12)
    assert failed["problem"] == "RuntimeError: no kernel" and not failed["fits"]
    assert naive["users"] == 1 and naive["fits"] and 0 < naive["mfu"] < 1
    assert not packed["fits"] and "seconds" not in packed
    assert steps.limit_rows(policy, (3,), 4)[0]["largest_users"] == 0


def test_flops_are_counted_from_the_shapes(policy):
    packed = pack_responses([[8, 9, 10]], [[[11, 12], [13, 14, 15]]], 0)
    flops = step_flops(policy.model, packed)
    # Tokens that are computed: the prompt, and of the responses all but the last ones.
    tokens, sources = 3 + 1 + 2, 1 + 1 + 2
    square, key, wide = 64 * 64, 64 * 32, 64 * 128
    assert flops.layers == 4 * tokens * 2 * (2 * square + 2 * key + 3 * wide)
    thin = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)
    assert flops.lora == 6 * tokens * 2 * 2 * thin  # two layers, rank 2
    assert flops.head == 4 * sources * 64 * 512
    pairs = 1 + 2 + 3 + 4 + (4 + 5)
    assert visible_pairs(packed) == pairs
    assert flops.attention == 3 * 4 * 64 * 2 * pairs
    masks = Layout(packed, "blocks").block_masks(None, torch.float32)
    assert int((masks[0][1] == 0).sum()) + 1 + 2 + 3 == pairs


def test_the_dry_run_is_asked_for_by_name():
    answer = CliRunner().invoke(app, ["bench", "gpu", "--output", "x", "--model", "7b"])
    assert isinstance(answer.exception, InputError) and "all or tiny" in str(answer.exception)
