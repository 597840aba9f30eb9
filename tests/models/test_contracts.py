"""What a part of each kind must have, and what is said of one that has not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detrbench import models
from detrbench.errors import UsageError
from detrbench.models import parts
from detrbench.models.contracts import CONTRACTS, check_contract, members
from detrbench.models.dimensions import Dimensions
from detrbench.models.parts import ALL_KINDS, Part
from detrbench.models.tokens import Encoded, Tokens


class Plain(nn.Module):
    """An encoder of a plug-in, which inherits nothing from detrbench."""

    needs_projection = needs_prediction = False

    def __init__(self, dimensions: Dimensions) -> None:
        super().__init__()
        self.mix = nn.Linear(dimensions.hidden_dim, dimensions.hidden_dim)

    def forward(self, tokens: Tokens, head: Any, outputs: str) -> Encoded:
        return Encoded(self.mix(tokens.features))

    def loss_terms(self) -> list[Any]:
        return []


class Unscored(Plain):
    needs_projection = property()  # type: ignore[assignment]


class Short(Plain):
    def forward(self, tokens: Tokens) -> Encoded:  # type: ignore[override]
        return Encoded(tokens.features)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers an encoder for one test."""
    monkeypatch.setattr(parts, "_PARTS", dict(parts._PARTS))

    def register(factory: Any) -> None:
        models.register(Part("encoder", "made_up", factory, "of a test"))

    return register


def test_every_kind_has_a_contract_and_every_contract_asks_for_a_forward() -> None:
    assert tuple(CONTRACTS) == ALL_KINDS
    assert all("forward" in members(contract) for contract in CONTRACTS.values())


def test_a_plugin_need_not_inherit(registered: Any) -> None:
    registered(Plain)
    detector = models.create("sparse_detr_tiny", encoder="made_up").eval()
    assert detector(torch.rand(1, 3, 64, 64)).pred_boxes.shape[-1] == 4


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (Unscored, "Unscored has no `needs_projection`"),
        (Short, "Short.forward does not take (tokens, proposal_head, outputs)"),
        (lambda dimensions: len, "made a builtin_function_or_method, which is no torch.nn.Module"),
    ],
)
def test_a_part_that_breaks_its_contract_is_refused_when_the_detector_is_built(
    registered: Any, factory: Any, said: str
) -> None:
    registered(factory)
    with pytest.raises(UsageError) as refused:
        models.create("sparse_detr_tiny", encoder="made_up")
    assert str(refused.value).startswith("encoder 'made_up': ")
    assert said in str(refused.value)
    assert "detrbench.models.contracts" in str(refused.value.hint)


def test_a_part_need_not_take_what_may_be_left_out() -> None:
    """Only an auxiliary decoder asks the decoder for layers that do not mix queries."""

    class Unmixed(nn.Module):
        def forward(self, queries: Any, encoded: Any, tokens: Any, heads: Any, outputs: str) -> None: ...

    check_contract(Part("decoder", "unmixed", Unmixed, "of a test"), Unmixed())


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_attribute_of_a_contract_is_missed(kind: str) -> None:
    class Bare(nn.Module):
        def forward(self, *arguments: Any) -> None: ...

    entry = Part(kind, "bare", Bare, "nothing but a module")
    missing = set()
    for member in members(CONTRACTS[kind]):
        if member == "forward":
            continue
        with pytest.raises(UsageError) as refused:
            check_contract(entry, Bare())
        missing.add(str(refused.value).split("`")[1])
        setattr(Bare, str(refused.value).split("`")[1], staticmethod(lambda *arguments: None))
    assert missing == set(members(CONTRACTS[kind])) - {"forward"}


def test_an_unknown_kind_of_outputs_is_refused() -> None:
    detector = models.create("deformable_detr_tiny").eval()
    images: Tensor = torch.rand(1, 3, 64, 64)
    with pytest.raises(UsageError, match="unknown outputs 'al'") as refused:
        detector(images, outputs="al")
    assert refused.value.hint == "did you mean 'all'? known: all, final"


def test_an_encoder_may_leave_fewer_levels_to_the_decoder() -> None:
    detector = models.create("lite_deformable_detr_tiny", low_updates=False, high_levels=2)
    layer = detector.get_submodule("decoder.layers.0.cross_attention")
    assert layer.layout[1] == 2
    assert detector.get_submodule("encoder.layers.0.attention").layout[1] == detector.spec.options["num_levels"]
