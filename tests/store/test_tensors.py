"""The tensor codec: bit-identical round trips, size that falls with density, and files that are not what they claim."""

import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import hypothesis.extra.numpy as numpy_strategies
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from lotteryfw.api.errors import StoreError
from lotteryfw.store import tensors

BITS = {
    torch.float32: "uint32",
    torch.float64: "uint64",
    torch.float16: "uint16",
    torch.bfloat16: "uint16",
} | {
    torch.int64: "uint64",
    torch.uint8: "uint8",
}
SHAPES = numpy_strategies.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    raw = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*raw)


def assert_same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    assert list(one) == list(other)
    assert all(same_bits(one[name], other[name]) for name in one)


@st.composite
def any_tensor(draw, shape):
    dtype = draw(st.sampled_from(list(BITS)))
    if draw(st.booleans()):
        return torch.zeros(shape, dtype=dtype)
    array = draw(
        numpy_strategies.arrays(BITS[dtype], shape)
    )  # every bit pattern: NaN payloads, -0.0, denormals
    return torch.from_numpy(array.reshape(-1)).view(dtype).reshape(shape)


@st.composite
def contents(draw):
    names = draw(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=8), unique=True, max_size=4
        )
    )
    values, masks = {}, {}
    for name in names:
        shape = draw(SHAPES)
        role = draw(st.sampled_from(["value", "masked", "mask"]))
        if role != "mask":
            values[name] = draw(any_tensor(shape))
        if role != "value":
            density = draw(st.sampled_from([None, False, True]))
            array = (
                draw(numpy_strategies.arrays(bool, shape))
                if density is None
                else np.full(shape, density)
            )
            masks[name] = torch.from_numpy(np.asarray(array))
            if name in values and draw(st.booleans()):
                values[name] = torch.where(
                    masks[name], values[name], torch.zeros_like(values[name])
                )
    return values, masks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tensors")


@settings(max_examples=200, deadline=None)
@given(
    contents(),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text("aé\n"), max_size=3),
)
def test_a_round_trip_keeps_every_bit(folder, content, meta):
    values, masks = content
    path = folder / "round.safetensors"
    tensors.save(path, values, masks, meta)
    loaded_values, loaded_masks = tensors.load(path)
    assert_same(loaded_values, values)
    assert_same(loaded_masks, masks)
    assert tensors.load_meta(path) == meta


def test_dead_values_that_are_not_plus_zero_survive(tmp_path):
    path = tmp_path / "t.safetensors"
    mask = torch.tensor([True, False, False])
    for dead in (-0.0, 1.5, float("nan")):
        value = torch.tensor([2.0, 0.0, dead])
        tensors.save(path, {"w": value}, {"w": mask})
        assert same_bits(tensors.load(path)[0]["w"], value)


@settings(deadline=None)
@given(st.data())
def test_plus_zero_is_told_to_the_bit(data):
    mask = (
        torch.tensor(data.draw(st.lists(st.booleans(), min_size=6, max_size=6))).reshape(2, 3).t()
    )
    dtype = data.draw(st.sampled_from([*BITS, torch.bool, torch.complex64, torch.complex128]))
    raw = torch.zeros(6 * dtype.itemsize, dtype=torch.uint8)
    places = st.lists(
        st.tuples(st.integers(0, len(raw) - 1), st.integers(1, 1 if dtype == torch.bool else 255))
    )
    for place, byte in data.draw(places):
        raw[place] = byte
    value = raw.view(dtype).reshape(2, 3).t()
    plain = not raw.reshape(6, -1)[mask.t().reshape(-1)].any()
    assert tensors.is_plus_zero(value, mask) == plain


def test_the_size_falls_with_density(tmp_path):
    value, n = torch.randn(300, 100), 30_000
    sizes = []
    for kept in (n, n // 5, n // 50):
        mask = (torch.arange(n) < kept).reshape(300, 100)
        tensors.save(tmp_path / "t.safetensors", {"w": torch.where(mask, value, 0.0)}, {"w": mask})
        sizes.append((tmp_path / "t.safetensors").stat().st_size)
        assert abs(sizes[-1] - (4 * kept + n / 8)) < 500
    assert sizes == sorted(sizes, reverse=True)


def test_views_and_tied_tensors_are_saved_as_what_they_show(tmp_path):
    stack = torch.arange(24.0).reshape(2, 3, 4)
    values = {
        "a": stack[1],
        "t": stack[0].t(),
        "tied": stack[1],
        "grad": stack[0].clone().requires_grad_(),
    }
    tensors.save(tmp_path / "t.safetensors", values)
    assert_same(
        tensors.load(tmp_path / "t.safetensors")[0],
        {name: value.detach() for name, value in values.items()},
    )


def test_equal_content_gives_equal_files(tmp_path):
    meta = {f"key {number}": "x" for number in range(8)}
    for name in ("a", "b"):
        tensors.save(
            tmp_path / name,
            {"w": torch.ones(3), "b": torch.ones(1)},
            {"w": torch.tensor([True] * 3)},
            meta,
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_loaded_tensors_may_be_changed_without_changing_the_file(tmp_path):
    path = tmp_path / "t.safetensors"
    tensors.save(path, {"w": torch.zeros(5)})
    tensors.load(path)[0]["w"].add_(1)
    assert tensors.load(path)[0]["w"].sum() == 0


@pytest.mark.parametrize("mask", [torch.ones(3), torch.ones(4, dtype=torch.bool)])
def test_a_mask_that_does_not_fit_is_refused(tmp_path, mask):
    with pytest.raises(ValueError, match="mask of 'w'"):
        tensors.save(tmp_path / "t", {"w": torch.ones(3)}, {"w": mask})


@pytest.fixture(scope="module")
def sound(folder) -> bytes:
    path = folder / "sound.safetensors"
    mask = torch.tensor([True, False, True, False, True, True, True, True, True])
    tensors.save(path, {"w": torch.arange(9.0), "b": torch.ones(3)}, {"w": mask}, {"made": "here"})
    return path.read_bytes()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_raises_nothing_but_a_store_error(folder, sound, data):
    path = folder / "damaged.safetensors"
    cut = data.draw(st.integers(0, len(sound)))
    damaged = bytearray(sound[:cut] if data.draw(st.booleans()) else sound)
    for place in (
        data.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=3)) if damaged else ()
    ):
        damaged[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    with (
        pytest.raises(StoreError, match=path.name)
        if len(damaged) < len(sound)
        else suppress(StoreError)
    ):
        tensors.load(path)


def crafted(path: Path, index: object, **stored: torch.Tensor) -> Path:
    save_file(
        {name.replace("__", ":"): tensor for name, tensor in stored.items()},
        path,
        {"lotteryfw": json.dumps(index)},
    )
    return path


@pytest.mark.parametrize("alive", [torch.ones(1), torch.ones(3), torch.ones(2, 1)])
def test_a_file_whose_parts_disagree_is_refused_rather_than_broadcast(tmp_path, alive):
    packed = torch.tensor([0b11000000], dtype=torch.uint8)
    index = {"format": 1, "values": ["w"], "masks": {"w": [4]}, "meta": {}}
    path = crafted(tmp_path / "t", index, mask__w=packed, alive__w=alive)
    with pytest.raises(StoreError, match="damaged"):
        tensors.load(path)


def test_a_mask_shorter_than_its_shape_is_refused_rather_than_padded(tmp_path):
    packed = torch.tensor([0b11000000], dtype=torch.uint8)
    path = crafted(
        tmp_path / "t", {"format": 1, "values": [], "masks": {"w": [9]}, "meta": {}}, mask__w=packed
    )
    with pytest.raises(StoreError, match="damaged"):
        tensors.load(path)


def test_other_peoples_files_are_refused(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.ones(2)}, foreign)
    text = tmp_path / "notes.txt"
    text.write_text("no tensors here, but quite a few more bytes than a header needs")
    huge = tmp_path / "huge"
    huge.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    for path in (foreign, text, huge, tmp_path / "absent", tmp_path):
        with pytest.raises(StoreError, match=path.name):
            tensors.load(path)


def test_a_newer_format_asks_for_an_update(tmp_path):
    path = crafted(tmp_path / "t", {"format": 99}, w=torch.ones(1))
    with pytest.raises(StoreError, match="newer lotteryfw"):
        tensors.load(path)


@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize("pattern", [0x7C01, 0x7E00, 0x7FFF, 0x7D23])
def test_the_payload_of_a_half_precision_nan_survives(
    tmp_path: Path, pattern: int, alive: bool
) -> None:
    value = torch.tensor([pattern], dtype=torch.int16).view(torch.float16)
    tensors.save(tmp_path / "t", {"w": value}, {"w": torch.tensor([alive])})
    assert tensors.load(tmp_path / "t")[0]["w"].view(torch.int16).item() == pattern


def test_the_library_reads_what_is_packed_without_it(tmp_path: Path) -> None:
    dtypes = [
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
        torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64,
    ]  # fmt: skip
    for shape in ((), (0,), (3,), (2, 0, 5), (3, 1, 2)):
        values = {str(dtype): torch.ones(shape).to(dtype) for dtype in dtypes}
        for chosen in (values, {name: values[name] for name in list(values)[:-1]}):
            (tmp_path / "t.safetensors").write_bytes(tensors.pack(chosen))
            stored = load_file(tmp_path / "t.safetensors")
            assert {name.removeprefix("value:") for name in stored} == set(chosen)
            for name, value in stored.items():
                assert same_bits(value, chosen[name.removeprefix("value:")])


@settings(max_examples=100, deadline=None)
@given(content=contents())
def test_the_layout_is_that_of_the_library(content) -> None:
    values, _ = content
    copies = {name: value.clone() for name, value in values.items()}
    text = {"lotteryfw": '{"é": 1}'}
    assert tensors._serialized(copies, text) == save(copies, metadata=text)


def test_every_tensor_is_aligned_in_its_file() -> None:
    content = tensors.pack({"b": torch.ones(3, dtype=torch.int8), "a": torch.ones(2).double()})
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert header["value:a"]["data_offsets"] == [0, 16]
    assert header["value:b"]["data_offsets"] == [16, 19]
