from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from raypo.assets import movielens_100k, resolve_model, smollm2_135m_instruct, tiny_random
from raypo.assets import packages as assets
from raypo.errors import InputError
from raypo.io.files import file_hash


def make_wheel(folder: Path, content: bytes = b"log") -> Path:
    """A package of the user's own that holds one data file."""
    folder.mkdir(exist_ok=True)
    file = folder / "somedata-1.0-py3-none-any.whl"
    meta = "somedata-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("somedata/log.inter", content)
        archive.writestr(f"{meta}/METADATA", "Name: somedata\nVersion: 1.0\n")
        archive.writestr(
            f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{meta}/RECORD", "")
    return file


@pytest.fixture
def local_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip looks into this folder and nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "packages"))
    return tmp_path / "packages"


def wheel_of(file: Path, content: bytes = b"log") -> assets._Wheel:
    unpacked = file.parent / "expected"
    unpacked.write_bytes(content)
    members = {"somedata/log.inter": file_hash(unpacked)}
    return assets._Wheel("somedata", "1.0", file_hash(file), members)


def test_a_package_is_fetched_and_verified(local_packages: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    assets._unpack(wheel_of(make_wheel(local_packages)), target)
    assert (target / "log.inter").read_bytes() == b"log"


def test_another_package_of_the_same_name_is_refused(local_packages: Path, tmp_path: Path) -> None:
    wheel = wheel_of(make_wheel(local_packages))
    make_wheel(local_packages, b"forged")
    with pytest.raises(InputError, match=r"somedata==1.0: sha256 is [0-9a-f]{64}, expected"):
        assets._cached("some", tmp_path, lambda folder: assets._unpack(wheel, folder))
    assert not (tmp_path / "some").exists()


def test_another_member_is_refused(local_packages: Path, tmp_path: Path) -> None:
    wheel = wheel_of(make_wheel(local_packages), content=b"other")
    with pytest.raises(InputError, match=r"somedata/log.inter: sha256"):
        assets._unpack(wheel, tmp_path)


def test_a_package_that_cannot_be_fetched_is_an_input_error(
    local_packages: Path, tmp_path: Path
) -> None:
    local_packages.mkdir()
    with pytest.raises(InputError, match=r"recbole==1\.2\.1: cannot be fetched with pip"):
        movielens_100k(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_incomplete_asset_is_built_again(tmp_path: Path) -> None:
    builds = []

    def build(folder: Path) -> None:
        builds.append(folder)
        (folder / "data").write_text("complete")

    folder = assets._cached("some", tmp_path, build)
    assert json.loads((folder / "manifest.json").read_text())["sha256"].keys() == {"data"}
    assert assets._cached("some", tmp_path, build) == folder
    assert len(builds) == 1
    (folder / "data").write_text("half")
    assets._cached("some", tmp_path, build)
    assert (folder / "data").read_text() == "complete"
    (folder / "manifest.json").write_text("{")
    assets._cached("some", tmp_path, build)
    (folder / "manifest.json").unlink()
    assets._cached("some", tmp_path, build)
    assets._cached("some", tmp_path, build, version=2)
    assert len(builds) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["some"]


def test_tiny_model_is_an_ordinary_llama(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_random(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token_id == model.config.eos_token_id == 1
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0
    text = "Which of these? Cité des enfants perdus, La (1995)\n\t日本"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0]) == text
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False
    )
    assert out.shape[1] <= ids.shape[1] + 3


def test_tiny_model_follows_its_seed(tmp_path: Path) -> None:
    import torch

    state = torch.random.get_rng_state()
    first = tiny_random(tmp_path / "a", seed=0)
    again = tiny_random(tmp_path / "b", seed=0)
    other = tiny_random(tmp_path / "a", seed=1)
    for name in ("model.safetensors", "tokenizer.json"):
        assert file_hash(first / name) == file_hash(again / name)
    assert file_hash(other / "model.safetensors") != file_hash(first / "model.safetensors")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_models_are_resolved_by_name_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYPO_CACHE", str(tmp_path))
    assert resolve_model("tiny-random") == tmp_path / "tiny-random"
    assert resolve_model(str(tmp_path / "tiny-random")) == tmp_path / "tiny-random"
    with pytest.raises(InputError, match=r"'gpt-9'.*smollm2-135m-instruct, tiny-random"):
        resolve_model("gpt-9")
    with pytest.raises(InputError, match=r"config\.json is missing"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"no \*\.safetensors"):
        resolve_model(str(tmp_path))


def test_checking_a_model_folder_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    code = (
        "import sys; from raypo.assets import resolve_model; "
        f"resolve_model({str(tmp_path)!r}); "
        "assert not {'torch', 'transformers', 'ray', 'vllm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_movielens_is_fetched(tmp_path: Path) -> None:
    folder = movielens_100k(tmp_path)
    lines = {
        kind: (folder / f"ml-100k.{kind}").read_text("utf-8").count("\n")
        for kind in ("inter", "item")
    }
    assert lines["inter"] in (100_000, 100_001)
    assert lines["item"] in (1_682, 1_683)


@pytest.mark.slow
def test_smollm2_is_converted_into_an_ordinary_model(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = smollm2_135m_instruct(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not hasattr(model.config, "quantization_config")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    question = [{"role": "user", "content": "Name the capital of France."}]
    asked = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**asked, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, asked["input_ids"].shape[1] :])
