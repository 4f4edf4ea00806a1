"""What the device is, and what it can do at most: products, memory, launches, waits."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import torch

from .report import Report


def run(report: Report) -> None:
    """Measure the limits that other parts are compared with."""
    name = platform.processor() or platform.machine()
    if report.device == "cuda":
        about = torch.cuda.get_device_properties(0)
        name = about.name
        report.add(
            "memory",
            about.total_memory / 2**30,
            "GiB",
            f"{about.multi_processor_count} multiprocessors",
        )
    report.add("name", name, note=f"{os.cpu_count()} CPU cores")
    cudnn = torch.backends.cudnn.version() if report.device == "cuda" else None
    report.add("torch", version("torch"), note=f"CUDA {torch.version.cuda}, cuDNN {cudnn}")
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    report.add(
        "TF32 in float32 products, convolutions", str(allowed), note="as the engine leaves it"
    )

    size = 64 if report.tiny else 8192
    kinds = (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    )
    for label, dtype, tf32 in kinds:
        with report.attempt(f"product {label}"):
            rate = _product_rate(report, size, dtype, tf32)
            report.add(f"product {label}", rate / 1e12, "TFLOP/s", f"{size}³")

    with report.attempt("copy"):
        source = torch.randn(2**10 if report.tiny else 2**28, device=report.device)
        target = torch.empty_like(source)
        seconds = report.seconds_per_call(lambda: target.copy_(source))
        report.add("copy", 2 * source.nbytes / seconds / 1e12, "TB/s", "bytes read and written")

    with report.attempt("launch"):
        small = torch.zeros(64, device=report.device)
        report.add(
            "one small operation", report.seconds_per_call(lambda: small.add_(1.0)) * 1e6, "µs"
        )
        report.add("one wait for a number", report.seconds_per_call(small.sum().item) * 1e6, "µs")
        rows = torch.zeros(128, dtype=torch.int64)
        seconds = report.seconds_per_call(lambda: rows.to(report.device))
        report.add("one copy of 1 kB to the device", seconds * 1e6, "µs")


def _product_rate(report: Report, size: int, dtype: torch.dtype, tf32: bool) -> float:
    a = torch.randn(size, size, device=report.device).to(dtype)
    b = torch.randn(size, size, device=report.device).to(dtype)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        seconds = report.seconds_per_call(lambda: a @ b)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * size**3 / seconds
