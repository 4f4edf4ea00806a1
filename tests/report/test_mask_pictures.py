"""Pictures of masks: their pixels, decoded here, are the shares that a ticket keeps."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.fake_runs import fake_run, row

from lotteryfw.report import write_page
from lotteryfw.report.data.run_data import RunData
from lotteryfw.report.html.mask_pictures import grey_png, mask_pictures
from lotteryfw.store import tensors, ticket_name


def pixels(content: bytes) -> Any:
    """Return the greys of a PNG with four bits a pixel, without its filters, which are 0."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, data = 8, b""
    width = height = 0
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            kind + body
        )
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (4, 0)
        if kind == b"IDAT":
            data += body
        at += 12 + length
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    greys = np.stack([lines[:, 1:] >> 4, lines[:, 1:] & 15], axis=2).reshape(height, -1)
    return greys[:, :width]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 4)])
def test_a_picture_has_the_shares_as_greys(shape: tuple[int, int]) -> None:
    shares = np.random.default_rng(0).random(shape)
    np.testing.assert_array_equal(pixels(grey_png(shares)), np.rint(shares * 15))


def ticket_run(path: Path, masks: dict[str, torch.Tensor], **manifest: Any) -> RunData:
    rows = [row({}, 0.9, seed=4), row({}, 0.9, seed=4, level=1, density=0.5)]
    folder = fake_run(path, rows)
    folder.write_manifest(folder.read_manifest() | manifest)
    name = ticket_name(rows[1].cell, "ticket", 1)
    values = {layer: torch.zeros(mask.shape) for layer, mask in masks.items()}
    tensors.save(folder.ticket_path(name), values, masks, {}, checksum=True)
    return RunData(folder)


def decoded(source: str) -> Any:
    return pixels(base64.b64decode(source.removeprefix("data:image/png;base64,")))


def test_each_layer_has_a_picture_and_the_first_one_over_the_pixels_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = torch.rand(6, 16) < 0.5, torch.rand(200, 6) < 0.3
    kernels = torch.rand(4, 2, 3, 3) < 0.5
    data = ticket_run(
        tmp_path / "run", {"fc1": first, "fc2": second, "conv": kernels},
        inputs={"criteria": [1, 4, 4]},
    )  # fmt: skip
    [ticket], _ = mask_pictures(data.shown[0], data)
    assert ticket.title == "ticket, seed 4, 50 % of the weights"
    over_pixels, weights, large, conv = ticket.pictures
    counts = first.sum(0).reshape(4, 4).numpy()
    np.testing.assert_array_equal(decoded(over_pixels.source), np.rint(15 * counts / counts.max()))
    np.testing.assert_array_equal(decoded(weights.source), 15 * first.numpy())
    # 200 rows are shown in blocks of three, the last of two
    shares = [second[start : start + 3].double().mean(0).numpy() for start in range(0, 200, 3)]
    np.testing.assert_array_equal(decoded(large.source), np.rint(15 * np.stack(shares)))
    assert (conv.width, conv.height) == (18, 4)
    assert "fc2: 200 outputs × 6 inputs, " in large.caption
    page = write_page(data).read_text("utf-8")
    assert page.count('<img src="data:image/png;base64,') == 4


def test_without_the_shape_of_inputs_or_without_tickets_nothing_is_guessed(tmp_path: Path) -> None:
    data = ticket_run(tmp_path / "run", {"fc1": torch.ones(6, 16, dtype=torch.bool)})
    [ticket], _ = mask_pictures(data.shown[0], data)
    assert [picture.caption for picture in ticket.pictures] == [
        "fc1: 6 outputs × 16 inputs, 100 % kept"
    ]
    empty = RunData(fake_run(tmp_path / "empty", [row({}, 0.9, level=1, density=0.5)]))
    assert mask_pictures(empty.shown[0], empty) == ([], "")


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    masks = {f"fc{index}": torch.ones(4, 4, dtype=torch.bool) for index in range(8)}
    data = ticket_run(tmp_path / "run", masks)
    _, note = mask_pictures(data.shown[0], data)
    assert note == "Shown are 6 of 8 layers."
    assert note in write_page(data).read_text("utf-8")
