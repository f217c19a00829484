"""Run by test_head_kernel.py with TRITON_INTERPRET=1; prints what it found right."""

import torch
from torch import nn

from raypo.policy import head_kernel
from raypo.policy.lm_head import LogitScaling, token_logps

VOCABULARY, WIDTH = 4500, 16  # a block of columns, and part of one
SOURCE_OF = torch.tensor([0, 0, 0, 1, 2, 3, 3])
TARGETS = torch.tensor([3, 3, 4499, 0, 4095, 4096, 7])
WEIGHTS = torch.linspace(0.5, 1.5, len(TARGETS), dtype=torch.float64)
SCALING = LogitScaling(scale=0.5)


def plain(weight, hidden):
    """Log-probs and the gradient of their weighted sum, in float64."""
    leaf = hidden.double().requires_grad_()
    logits = SCALING.scale * leaf @ weight.double().T
    logps = logits.log_softmax(-1)[SOURCE_OF, TARGETS]
    return logps.detach(), torch.autograd.grad((WEIGHTS * logps).sum(), leaf)[0]


def error(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


def main():
    cpu = torch.device("cpu")
    torch.manual_seed(0)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.01)):
        head_kernel.check_head_kernel(cpu, dtype)
        if dtype is torch.float32:
            print("check")
        head = nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=dtype).requires_grad_(False)
        nn.init.normal_(head.weight)
        hidden = torch.randn(4, WIDTH, dtype=dtype)
        head.uses_kernel = True
        leaf = hidden.clone().requires_grad_()
        logps = token_logps(head, SCALING, leaf, SOURCE_OF, TARGETS)
        (gradient,) = torch.autograd.grad((WEIGHTS * logps).sum(), leaf)
        expected, expected_gradient = plain(head.weight, hidden)
        assert error(logps.detach(), expected) < tolerance
        assert error(gradient, expected_gradient) < tolerance
        print(str(dtype).removeprefix("torch."))
    with torch.no_grad():
        scored = token_logps(head, SCALING, hidden, SOURCE_OF, TARGETS)
    assert error(scored, expected) < tolerance
    print("scored")
    right = head_kernel.fused_logps
    head_kernel.fused_logps = lambda *arguments: 1.01 * right(*arguments)
    try:
        head_kernel.check_head_kernel(cpu, torch.float32)
    except RuntimeError as error_of_check:
        assert "log-probs without gradient" in str(error_of_check)
        print("refused")


main()
