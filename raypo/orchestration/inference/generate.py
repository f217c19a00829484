"""Greedy answers, free or constrained to candidates, from a pool of vLLM engines behind Ray Data.

The pool is Ray's own (`ray.data.llm`): prompts are tokenised here once, so that the policy's scorer
and the engines read the same tokens; adapters travel as LoRA requests, several in one engine start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from ray.data.llm import build_processor, vLLMEngineProcessorConfig

from raypo.config import EngineConfig
from raypo.data.tokenisation import Encoder
from raypo.evaluation.answer_store import AnswerStore
from raypo.io.files import read_json
from raypo.io.progress import Progress
from raypo.orchestration.inference.ray_blocks import in_blocks


@dataclass
class RequestBatch:
    """Questions that are answered in one way.

    Attributes:
        questions: columns name, row, order, history, candidates.
        kept: where answers go, with what was answered before.
        constrained: only the title of one of the row's candidates can come out.
        errors: by 'name row', of rows that failed twice.
    """

    questions: pd.DataFrame
    kept: AnswerStore
    constrained: bool
    errors: dict[str, str] = field(default_factory=dict)


def ask(
    sheets: Sequence[RequestBatch],
    adapters: Mapping[str, Path | None],
    model_folder: Path,
    encoder: Encoder,
    config: EngineConfig,
    dtype: str,
    progress: Progress,
) -> None:
    """Put to each adapter its questions that have no answer yet, and keep the answers.

    All sheets share the engines. What fails is asked once more: an engine that dies takes the rows
    it was at with it, and Ray starts another.

    Args:
        sheets: the questions.
        adapters: name -> adapter folder, None for the base model.
        model_folder: the base model.
        encoder: makes the prompts' tokens.
        config: the pool.
        dtype: the engine's precision.
        progress: told of finished answers.
    """
    total = sum(len(sheet.questions) for sheet in sheets)
    for turn in range(2):
        for sheet in sheets:
            sheet.errors.clear()
        for pool in _pools(adapters, config):
            requests = [
                _requests(number, sheet, pool, model_folder, encoder, config)
                for number, sheet in enumerate(sheets)
            ]
            missing = pd.concat(requests, ignore_index=True)
            if not len(missing):
                continue
            note = "once more" if turn else "starting engines"
            progress(sum(len(sheet.kept) for sheet in sheets), total, note)
            for answer in _ask(missing, engine_pool(model_folder, pool, config, dtype), config):
                sheet = sheets[answer.pop("sheet")]
                error = answer.pop("error")
                if error is None:
                    sheet.kept.add(answer)
                else:
                    sheet.errors[f"{answer['name']} {answer['row']}"] = error
                progress(sum(len(one.kept) for one in sheets), total, "answers")
        if not any(sheet.errors for sheet in sheets):
            break


def _pools(
    adapters: Mapping[str, Path | None], config: EngineConfig
) -> list[Mapping[str, Path | None]]:
    """The models that may share an engine.

    On a CPU the base model gets one of its own: vLLM marks a request without adapter by slot -1,
    which its CPU kernels (`lora/ops/torch_ops`) read as the last slot, so that in an engine with
    adapters the base model answers with whatever adapter lies there. Its GPU kernels skip -1.
    """
    base = {name: folder for name, folder in adapters.items() if folder is None}
    adapted = {name: folder for name, folder in adapters.items() if folder is not None}
    if config.gpus_per_engine > 0 or not base or not adapted:
        return [adapters]
    return [base, adapted]


def _ask(
    requests: pd.DataFrame, pool: vLLMEngineProcessorConfig, config: EngineConfig
) -> Iterator[dict[str, Any]]:
    # These two move rows alone; counted as a core they could wait for ever for one of the engines'.
    no_core = {"num_cpus": 0}
    processor = build_processor(
        pool,
        preprocess=dict,
        postprocess=_answer,
        preprocess_map_kwargs=no_core,
        postprocess_map_kwargs=no_core,
    )
    yield from processor(in_blocks(requests, config.batch_size)).iter_rows()


def engine_pool(
    model_folder: Path, adapters: Mapping[str, Path | None], config: EngineConfig, dtype: str
) -> vLLMEngineProcessorConfig:
    """The pool's configuration, on GPU or CPU."""
    ranks = [_rank(folder) for folder in adapters.values() if folder is not None]
    engine: dict[str, Any] = {
        "dtype": dtype,
        "max_model_len": config.max_model_len,
        "tensor_parallel_size": config.tensor_parallel,
        "enable_prefix_caching": True,
        "enforce_eager": config.gpus_per_engine == 0,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if ranks:
        engine |= {
            "enable_lora": True,
            "max_lora_rank": _served_rank(max(ranks)),
            "max_loras": len(ranks),
        }
    environment = {"VLLM_LOGGING_LEVEL": "ERROR"}
    if config.gpus_per_engine == 0:
        environment |= {
            "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
            "OMP_NUM_THREADS": str(max(1, int(config.cpus_per_engine))),
            # vLLM would keep a core free for its scheduler, which is half of a small machine.
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        }
        if config.tensor_parallel > 1:
            environment["VLLM_CPU_OMP_THREADS_BIND"] = _cores(config)
            engine["distributed_executor_backend"] = "mp"  # its CPU build knows no other
    bundle = {"CPU": config.cpus_per_engine, "GPU": config.gpus_per_engine}
    off = {"enabled": False}
    return vLLMEngineProcessorConfig(
        model_source=str(model_folder),
        engine_kwargs=engine,
        concurrency=config.engines,
        batch_size=config.batch_size,
        max_concurrent_batches=config.concurrent_batches,
        runtime_env={"env_vars": environment},
        placement_group_config={
            "bundles": [{name: count for name, count in bundle.items() if count}]
            * config.tensor_parallel
        },
        log_engine_metrics=False,
        should_continue_on_error=True,
        chat_template_stage=off,
        tokenize_stage=off,
        detokenize_stage=off,
        prepare_multimodal_stage=off,
    )


def _cores(config: EngineConfig) -> str:
    """Cores of each of an engine's processes: vLLM itself wants a memory node for each of them."""
    each = max(1, int(config.cpus_per_engine))
    starts = range(0, each * config.tensor_parallel, each)
    return "|".join(f"{start}-{start + each - 1}" for start in starts)


def _requests(
    number: int,
    sheet: RequestBatch,
    adapters: Mapping[str, Path | None],
    model_folder: Path,
    encoder: Encoder,
    config: EngineConfig,
) -> pd.DataFrame:
    """What the engines are to be asked of a sheet, for these adapters."""
    questions = sheet.questions
    missing = sheet.kept.missing(questions[questions["name"].isin(adapters)])
    pairs = list(zip(missing["history"], missing["candidates"], strict=True))
    models = {
        name: str(folder.resolve() if folder else model_folder) for name, folder in adapters.items()
    }
    # Without constraint all rows are asked alike, and one object serves them all.
    freely = {"temperature": 0.0, "max_tokens": config.max_new_tokens}
    return pd.DataFrame(
        {
            "sheet": number,
            "name": missing["name"].to_numpy(),
            "row": missing["row"].to_numpy(),
            "order": missing["order"].to_numpy(),
            "model": missing["name"].map(models).to_numpy(),
            "tokenized_prompt": [encoder.prompt(*pair) for pair in pairs],
            "sampling_params": [
                _choice(encoder, candidates) if sheet.constrained else freely
                for _, candidates in pairs
            ],
        }
    )


def _choice(encoder: Encoder, candidates: Sequence[int]) -> dict[str, Any]:
    """Sampling that lets one of the candidates' titles out, as responses are trained: ' title'."""
    longest = max(len(encoder.response(int(item))) for item in candidates)
    # A constrained answer may take other tokens than the tokenizer would, and more of them.
    return {
        "temperature": 0.0,
        "max_tokens": 2 * longest + 8,
        "structured_outputs": {"choice": [" " + encoder.titles[int(item)] for item in candidates]},
    }


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    error = row.get("__inference_error__") or None
    return {
        "sheet": int(row["sheet"]),
        "name": row["name"],
        "row": int(row["row"]),
        "order": int(row["order"]),
        "answer": None if error else _first_line(str(row["generated_text"])),
        "tokens": 0 if error else int(row.get("num_generated_tokens") or 0),
        "error": error,
    }


def _first_line(text: str) -> str:
    """The first line with something in it: untuned models often begin with a line break."""
    return text.strip().partition("\n")[0].strip()


def _rank(adapter: Path) -> int:
    return int(read_json(adapter / "adapter_config.json")["r"])


def _served_rank(rank: int) -> int:
    """VLLM serves LoRA ranks of these sizes alone."""
    return next(size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank)
