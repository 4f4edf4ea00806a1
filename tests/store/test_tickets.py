"""Tickets: what was saved is what an nn.Module gets, or a message that says what does not fit."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lotteryfw.api.errors import StoreError, UsageError
from lotteryfw.api.tickets import MaskStats, RewindPoint, Ticket, TicketState
from lotteryfw.search.stored_tickets import Loaded
from lotteryfw.store import load_ticket, save_ticket, saved_stats


def net(width: int = 5) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 3))


def made(level: int, mask: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> Ticket:
    kept = {name: int(part.sum()) for name, part in mask.items()}
    stats = MaskStats(sum(kept.values()), kept, {name: part.numel() for name, part in mask.items()})
    return Ticket.derived(
        Loaded("origin", lambda: TicketState(mask, values, stats)), level, RewindPoint(0, 0)
    )


@pytest.fixture
def ticket() -> Ticket:
    torch.manual_seed(0)
    source = net()
    mask = {
        name: torch.rand_like(source.get_parameter(name)) < 0.4 for name in ("0.weight", "2.weight")
    }
    values = {name: value.clone() for name, value in source.state_dict().items()}
    for name in mask:
        values[name] *= mask[name]
    return made(3, mask, values)


@pytest.fixture
def path(tmp_path, ticket):
    save_ticket(tmp_path / "t.safetensors", ticket, {"cell": "c1"})
    return tmp_path / "t.safetensors"


def test_a_ticket_reads_back(path, ticket):
    loaded = load_ticket(str(path))
    assert all(torch.equal(loaded.values[name], value) for name, value in ticket.values.items())
    assert all(torch.equal(loaded.mask[name], mask) for name, mask in ticket.mask.items())
    assert list(loaded.values) == list(ticket.values)
    stats = '[12, {"0.weight": 9, "2.weight": 3}, {"0.weight": 20, "2.weight": 15}]'
    assert loaded.meta == {"cell": "c1", "origin": "origin", "level": "3", "stats": stats}
    assert saved_stats(path, ticket, {"cell": "c1"}) == ticket.cut
    assert saved_stats(path, ticket, {"cell": "c2"}) is None
    assert saved_stats(path.with_name("absent"), ticket, {"cell": "c1"}) is None
    kept = sum(int(mask.sum()) for mask in ticket.mask.values())
    assert loaded.density == kept / 35


def test_values_are_copied_in_the_modules_own_dtype(path, ticket):
    module = net().double()
    assert load_ticket(path).apply(module) is module
    for name, value in module.state_dict().items():
        assert torch.equal(value, ticket.values[name].to(value.dtype))
    assert module[0].weight.dtype == torch.float64
    assert module[0].weight.requires_grad


def test_the_prune_form_keeps_the_dead_at_zero_while_training(path, ticket):
    module = load_ticket(path).apply(net(), masks_as="prune")
    assert prune.is_pruned(module)
    assert torch.equal(module[0].weight_mask.bool(), ticket.mask["0.weight"])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.1)
    module(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    module(torch.randn(8, 4))
    assert not module[0].weight[~ticket.mask["0.weight"]].any()
    assert not torch.equal(module[0].weight.detach(), ticket.values["0.weight"])


def test_the_prune_form_cannot_freeze_at_other_values(tmp_path, ticket):
    ticket.values["0.weight"][~ticket.mask["0.weight"]] = 1.0
    save_ticket(tmp_path / "t", ticket)
    module = net()
    before = module[0].weight.clone()
    with pytest.raises(UsageError, match=r"'0\.weight'.*masks_as=\"values\""):
        load_ticket(tmp_path / "t").apply(module, masks_as="prune")
    assert torch.equal(module[0].weight, before)
    assert module[0].weight is load_ticket(tmp_path / "t").apply(module)[0].weight


def test_a_module_that_does_not_fit_is_told_all_of_it_and_left_alone(path):
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    module.two = nn.Linear(5, 3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UsageError) as caught:
        load_ticket(path).apply(module)
    text = str(caught.value)
    assert "'0.weight' is [5, 4] here and [6, 4] in the module" in text
    assert "'2.weight' [3, 5] is not in the module; did you mean" in text
    assert "the module's 'two.weight' is not in the ticket; did you mean '2.weight'" in text
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_tied_parameters_need_to_be_in_the_ticket_once(tmp_path):
    values = {"0.weight": torch.eye(3)}
    save_ticket(tmp_path / "t", made(0, {}, values))
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    loaded = load_ticket(tmp_path / "t")
    assert torch.equal(loaded.apply(module)[1].weight, torch.eye(3))
    assert loaded.density == 1.0


def test_a_file_that_is_no_ticket(tmp_path):
    (tmp_path / "t").write_text("not a ticket at all")
    for path in (tmp_path / "t", tmp_path / "absent"):
        with pytest.raises(StoreError, match=path.name):
            load_ticket(path)
