"""What every process of a study pays before its first step."""

from __future__ import annotations

import subprocess
import sys


def test_an_optimizer_does_not_bring_torchs_compiler_along() -> None:
    code = """
import sys, torch
from lotteryfw.engine import configure_torch
configure_torch()
optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
assert optimizer.param_groups[0]["momentum"] == 0.9
assert "torch._dynamo" not in sys.modules
optimizer.step()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
