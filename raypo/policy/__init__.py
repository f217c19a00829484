"""The language model as a policy: loading, LoRA, shared-prefix packing, response log-probs."""

from raypo.policy.logps import PackedPolicy, ResponseLogps, response_logps
from raypo.policy.packing import PackedResponses, pack_responses

__all__ = ["PackedPolicy", "PackedResponses", "ResponseLogps", "pack_responses", "response_logps"]
