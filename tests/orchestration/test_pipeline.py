"""The pipeline as a user runs it: real Ray, DeepSpeed, PEFT and vLLM on a tiny model."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from raypo.io.run_folder import read_metrics

pytestmark = pytest.mark.slow
RAYPO = [str(Path(sys.executable).with_name("raypo"))]


def raypo(*arguments: str, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RAYPO, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One smoke demo, and what it printed."""
    output = tmp_path_factory.mktemp("demo") / "run"
    answer = raypo("demo", "--scale", "smoke", "--output", str(output))
    assert answer.returncode == 0, answer.stderr
    return output, answer


def finished_before(answer: subprocess.CompletedProcess[str]) -> list[str]:
    """The stages that a run of the pipeline found finished."""
    return re.findall(r"^(\S+): finished before", answer.stderr, re.MULTILINE)


def stages(output: Path) -> list[str]:
    """The folders of a run whose names end in the hash of what made them."""
    return [folder.name[:-11] for folder in output.glob("*-??????????") if folder.is_dir()]


def stage(output: Path, name: str) -> Path:
    (folder,) = output.glob(f"{name}-??????????")
    return folder


def test_it_ends_with_the_table_and_the_report(demo):
    output, answer = demo
    heuristics = ("Random", "Popularity", "Markov chain", "Item-kNN")
    models = ("SASRec", "Base LLM", "SFT", "NAPO", "Fused without LLM", "Fused with NAPO")
    for row in (*heuristics, *models):
        assert re.search(rf"│ {row} ", answer.stdout)
    assert f"report: {output / 'report.html'}" in answer.stdout
    page = (output / "report.html").read_text()
    assert "Reward margin" in page and "Margin gamma" in page
    assert "Fused with NAPO: HitRatio@1" in page
    assert (
        "prompts have hints (rank) of SASRec, item-kNN, fused into one; in training out of" in page
    )
    assert (output / "table.md").read_text().count("\n") == 12
    # Policies rank what the recommender retrieves, the others everything.
    assert "NAPO, retrieved:20" in page and "Kendall" in page


def test_progress_names_every_stage_and_shows_no_warnings(demo):
    _, answer = demo
    for name in ("prepare", "recommender", "sft", "align", "evaluate", "fuse"):
        assert f"{name}: " in answer.stderr
    assert "Warning" not in answer.stderr
    assert "WARNING" not in answer.stderr


def test_run_folders_have_the_files_of_the_contract(demo):
    output, _ = demo
    for name in ("sft", "align"):
        folder = stage(output, name)
        for file in ("config.yaml", "environment.json", "metrics.jsonl", "summary.json"):
            assert (folder / file).exists()
        assert (folder / "adapter" / "adapter_model.safetensors").exists()
        assert not list(folder.rglob("*.pt")) and not list(folder.rglob("*.bin"))
    lines = read_metrics(stage(output, "align"))
    assert {"loss", "rewards/margin", "gamma", "negatives", "gradient_norm"} <= lines[-1].keys()
    assert lines[0]["negatives"] > 3


def test_the_aligned_policy_is_fused_with_the_recommenders(demo):
    output, _ = demo
    fusion = json.loads((stage(output, "fuse") / "fusion.json").read_text())
    models = ["Popularity", "Markov chain", "Item-kNN", "SASRec"]
    assert list(fusion["weights"]) == [*models, "NAPO"]
    added = fusion["added"]
    assert {"difference", "low", "high", "p_value", "against"} <= added.keys()
    without = json.loads((stage(output, "fuse-without") / "metrics.json").read_text())
    assert added["other"] == pytest.approx(without["likelihood"]["HitRatio@1"])


def test_metrics_follow_the_contract(demo):
    output, _ = demo
    for model in ("base", "sft", "aligned"):
        folder = stage(output, "evaluate") / model
        metrics = json.loads((folder / "metrics.json").read_text())
        assert {"HitRatio@1", "ValidRatio", "PopularityBias", "HitRatio@1/valid", "n"} <= metrics[
            "generate"
        ].keys()
        assert {"HitRatio@1", "HitRatio@5", "NDCG@5", "NDCG@10", "MRR", "n"} <= metrics[
            "likelihood"
        ].keys()
        predictions = pd.read_parquet(folder / "predictions.parquet")
        assert predictions["row"].is_unique and len(predictions) == 40
        assert predictions["answer"].notna().all()


def test_the_adapter_changes_the_likelihoods(demo):
    output, _ = demo
    folder = stage(output, "evaluate")
    scores = [
        pd.read_parquet(folder / model / "predictions.parquet")["logps"].iloc[0][0]
        for model in ("base", "sft", "aligned")
    ]
    assert len(set(scores)) == 3


def test_plain_peft_loads_the_adapter(demo):
    import peft
    from transformers import AutoModelForCausalLM

    from raypo.assets import tiny_random

    output, _ = demo
    model = AutoModelForCausalLM.from_pretrained(tiny_random())
    adapted = peft.PeftModel.from_pretrained(model, stage(output, "align") / "adapter")
    assert any(p.abs().sum() > 0 for n, p in adapted.named_parameters() if "lora_B" in n)


def test_a_second_run_does_nothing_again(demo):
    output, _ = demo
    before = {file: file.stat().st_mtime_ns for file in output.rglob("*.safetensors")}
    answer = raypo("demo", "--scale", "smoke", "--output", str(output), timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert sorted(finished_before(answer)) == sorted(stages(output))
    assert before == {file: file.stat().st_mtime_ns for file in output.rglob("*.safetensors")}


def test_a_deleted_stage_is_the_only_one_run_again(demo):
    output, _ = demo
    (stage(output, "evaluate-sasrec") / "metrics.json").unlink()
    answer = raypo("demo", "--scale", "smoke", "--output", str(output), timeout=60)
    again = set(stages(output)) - set(finished_before(answer))
    assert again == {"evaluate-sasrec"}
