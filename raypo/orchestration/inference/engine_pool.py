"""The configuration of a pool of vLLM engines behind Ray Data."""

from __future__ import annotations

from typing import Any

from ray.data.llm import vLLMEngineProcessorConfig

from raypo.config import EngineConfig
from raypo.evaluation.models import LanguageModels
from raypo.io.files import read_json
from raypo.policy.precision import dtype_name

# LoRA ranks that vLLM can be configured for.
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def engine_pool(models: LanguageModels, config: EngineConfig) -> vLLMEngineProcessorConfig:
    """The configuration of a pool that serves these models, on GPU or CPU.

    Args:
        models: base model and adapters, all of which an engine holds at once.
        config: number and size of the engines.
    """
    rank = max_lora_rank(models)
    engine: dict[str, Any] = {
        "dtype": dtype_name(models.policy, config.gpus_per_engine > 0),
        "max_model_len": config.max_model_len,
        "tensor_parallel_size": config.tensor_parallel,
        "enable_prefix_caching": True,
        "enforce_eager": config.gpus_per_engine == 0,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if rank:
        engine |= {
            "enable_lora": True,
            "max_lora_rank": rank,
            "max_loras": len(models.adapter_folders),
        }
    engine |= executor(config)
    bundle = {"CPU": config.cpus_per_engine, "GPU": config.gpus_per_engine}
    off = {"enabled": False}
    return vLLMEngineProcessorConfig(
        model_source=str(models.folder),
        engine_kwargs=engine,
        concurrency=config.engines,
        batch_size=config.batch_size,
        max_concurrent_batches=config.concurrent_batches,
        runtime_env={"env_vars": environment(config)},
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


def environment(config: EngineConfig) -> dict[str, str]:
    """Environment variables of an engine's process."""
    variables = {"VLLM_LOGGING_LEVEL": "ERROR"}
    if config.gpus_per_engine == 0:
        variables |= {
            "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
            "OMP_NUM_THREADS": str(max(1, int(config.cpus_per_engine))),
            # By default vLLM reserves a core for its scheduler: half of a small machine.
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        }
        if config.tensor_parallel > 1:
            variables["VLLM_CPU_OMP_THREADS_BIND"] = _cores(config)
    return variables


def executor(config: EngineConfig) -> dict[str, Any]:
    """Arguments of an engine for its executor."""
    if config.gpus_per_engine == 0 and config.tensor_parallel > 1:
        return {"distributed_executor_backend": "mp"}  # the only one of vLLM's CPU build
    return {}


def max_lora_rank(models: LanguageModels) -> int:
    """The smallest rank that vLLM supports and that holds all adapters; 0 without adapters."""
    ranks = [
        int(read_json(folder / "adapter_config.json")["r"]) for folder in models.adapter_folders
    ]
    return next(size for size in _LORA_RANKS if size >= max(ranks)) if ranks else 0


def _cores(config: EngineConfig) -> str:
    """Cores of each process of an engine; vLLM's own binding needs a memory node per process."""
    each = max(1, int(config.cpus_per_engine))
    starts = range(0, each * config.tensor_parallel, each)
    return "|".join(f"{start}-{start + each - 1}" for start in starts)
