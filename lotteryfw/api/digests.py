"""Content digests: the same data has the same digest, on every machine and in every process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


# json.dumps makes a new encoder at each call, which takes as long as encoding a short value.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of JSON-able data in canonical form."""
    return hashlib.sha256(_CANONICAL(value).encode()).hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of named tensors: of their names, dtypes, shapes and bytes."""
    import torch

    hashed = hashlib.sha256()
    # Equal mappings may have another order.
    for name in sorted(tensors):
        # The digest is of the values, wherever they lie.
        tensor = tensors[name].detach().cpu().contiguous()
        hashed.update(f"{name}|{tensor.dtype}|{list(tensor.shape)}|".encode())
        # a view as bytes needs at least one element
        if tensor.numel():
            hashed.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
