"""Counts of toy modules against closed forms, worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from detrbench.errors import UsageError
from detrbench.measure import complexity, counters
from detrbench.measure.inputs import Inputs
from detrbench.measure.protocols.complexity import ComplexityProtocol
from detrbench.measure.rules import EVERY_OP, FVCORE, CountingRule
from detrbench.measure.tally import Tally


class Toy(nn.Module):
    """Backbone conv + frozen norm, an encoder that calls the shared head, self-attention as decoder."""

    def __init__(self, width: int = 8, auxiliary: bool = True) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), FrozenBatchNorm2d(width))
        self.head = nn.Linear(width, 5)
        self.encoder = Encoder(width, self.head if auxiliary else None)
        self.decoder = nn.MultiheadAttention(width, 2, batch_first=True)

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"backbone": self.backbone, "encoder": self.encoder, "decoder": self.decoder, "heads": self.head}

    def forward(self, images: Tensor, masks: Tensor | None, outputs: str = "final") -> SimpleNamespace:
        tokens = self.encoder(self.backbone(images).flatten(2).transpose(1, 2).contiguous(), outputs == "all")
        tokens = self.decoder(tokens, tokens, tokens, need_weights=False)[0]
        return SimpleNamespace(pred_logits=self.head(tokens), pred_boxes=tokens[..., :4].sigmoid())


class Encoder(nn.Module):
    def __init__(self, width: int, head: nn.Linear | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = head

    def forward(self, tokens: Tensor, auxiliary: bool) -> Tensor:
        tokens = self.norm(tokens)
        if auxiliary and self.head is not None:
            tokens = tokens + self.head(tokens).mean()
        return tokens


def toy_protocol(rule: CountingRule = FVCORE, outputs: str = "final", **overrides: bool) -> ComplexityProtocol:
    return ComplexityProtocol("toy", "", Inputs.single(8, 12), rule, outputs, overrides)  # type: ignore[arg-type]


N, C = 4 * 6, 8  # tokens and width of the toy on an 8x12 image
CONV, NORM, HEAD = N * C * 27, 5 * N * C, N * C * 5
ATTENTION = 4 * N * C * C + 2 * N * N * C


def test_parts_and_total_of_fvcore_rule() -> None:
    record = complexity.measure(Toy, toy_protocol())
    by_part = {part: round(gflops * 1e9) for part, gflops in record.gflops_by_part.items()}
    assert by_part == {"backbone": CONV, "encoder": NORM, "decoder": ATTENTION, "heads": HEAD}
    assert record.gflops == pytest.approx(sum(record.gflops_by_part.values()))
    assert record.inputs == [{"height": 8, "width": 12, "weight": 1, "gflops": pytest.approx(record.gflops)}]


def test_shared_head_is_booked_where_it_runs() -> None:
    final, everything = (complexity.measure(Toy, toy_protocol(outputs=outputs)) for outputs in ("final", "all"))
    assert (everything.gflops_by_part["encoder"] - final.gflops_by_part["encoder"]) * 1e9 == pytest.approx(HEAD)
    assert everything.gflops_by_part["heads"] == final.gflops_by_part["heads"]


def test_overrides_reach_the_detector() -> None:
    without = complexity.measure(Toy, toy_protocol(outputs="all", auxiliary=False))
    assert without.gflops == pytest.approx(complexity.measure(Toy, toy_protocol()).gflops)
    with pytest.raises(UsageError, match="auxiliary"):
        complexity.measure(Toy(), toy_protocol(auxiliary=False))


def test_every_op_counts_elementwise_softmax_and_frozen_norm() -> None:
    tally = counters.count(Toy().to("meta").eval(), 8, 12, "final")
    cost = {kind: 0 for _, _, kind in tally.units}
    for (_, _, kind), units in tally.units.items():
        cost[kind] += units
    assert cost["softmax"] == 2 * N * N
    assert cost["frozen_batch_norm"] == N * C
    assert cost["matmul"] == ATTENTION + HEAD
    assert tally.gflops(EVERY_OP, "backbone") * 1e9 == pytest.approx(CONV + 2 * N * C)


def test_uncounted_operators_are_listed() -> None:
    record = complexity.measure(Toy, toy_protocol())
    assert record.uncounted["aten::sigmoid"] == 1
    assert record.uncounted["frozen_batch_norm"] == 1
    assert "aten::convolution" not in record.uncounted
    assert "aten::sigmoid" not in complexity.measure(Toy, toy_protocol(EVERY_OP)).uncounted


def test_unknown_operator_is_listed_not_silently_zero() -> None:
    class Sorting(Toy):
        def forward(self, images: Tensor, masks: Tensor | None, outputs: str = "final") -> SimpleNamespace:
            out = super().forward(images, masks, outputs)
            torch.linalg.qr(out.pred_logits)
            out.pred_logits.topk(2)
            return out

    uncounted = complexity.measure(Sorting, toy_protocol(EVERY_OP)).uncounted
    assert uncounted["aten::linalg_qr"] == 1
    assert uncounted["aten::topk"] == 1


def test_cross_checks_agree_and_list_what_they_miss() -> None:
    record = complexity.measure(Toy, toy_protocol(), cross_check=True)
    ours, fvcore, torch_counter = (
        record.cross_check[f"{counter} at 8x12"] for counter in ("detrbench (fvcore)", "fvcore", "FlopCounterMode")
    )
    assert ours.gflops == pytest.approx(record.gflops)
    # Both pass over the fused fast path of `nn.MultiheadAttention`.
    assert fvcore.gflops * 1e9 == pytest.approx(CONV + NORM + HEAD)
    assert torch_counter.gflops * 1e9 == pytest.approx(CONV + HEAD)
    assert fvcore.missed["aten::_native_multi_head_attention"] == 1
    assert torch_counter.missed["aten::_native_multi_head_attention"] == 1
    assert torch_counter.missed["aten::native_layer_norm"] == 1


@pytest.mark.parametrize("inference", [False, True])
def test_fused_attention_is_counted_on_a_real_device(inference: bool) -> None:
    """In eval `nn.MultiheadAttention` is one fused operator, which other counters pass over."""
    attention = nn.MultiheadAttention(C, 2, batch_first=True).eval()
    tokens = torch.zeros(1, N, C)
    counter = counters.OperationCounter(attention)
    with torch.inference_mode(inference), torch.no_grad(), counter.watching() as tally:
        attention(tokens, tokens, tokens, need_weights=False)
    assert tally.gflops(FVCORE) * 1e9 == pytest.approx(ATTENTION)


def test_scaled_dot_product_and_deformable_attention() -> None:
    query = torch.zeros(2, 4, 10, 8)
    counter = counters.OperationCounter(nn.Identity())
    with torch.no_grad(), counter.watching() as tally:
        F.scaled_dot_product_attention(query, query[:, :, :6], query[:, :, :6])
    assert tally.gflops(FVCORE) * 1e9 == pytest.approx(2 * 2 * 4 * 10 * 6 * 8)


def test_weighted_mean_over_sizes() -> None:
    sizes = {(8, 12): 3, (16, 16): 1}
    protocol = ComplexityProtocol("two", "", Inputs("two sizes", lambda: sizes), FVCORE)
    record = complexity.measure(Toy, protocol)
    each = [complexity.measure(Toy, toy_protocol().at(*size)).gflops for size in sizes]
    assert record.gflops == pytest.approx((3 * each[0] + each[1]) / 4)


def test_parameters_count_shared_tensors_once_and_no_buffers() -> None:
    total, trainable, by_part = complexity.parameters(Toy())
    assert by_part == pytest.approx({"backbone": 224e-6, "encoder": 61e-6, "decoder": 288e-6, "heads": 0.0})
    assert total == pytest.approx(trainable) == pytest.approx(573e-6)


def test_measuring_leaves_the_detector_alone() -> None:
    toy = Toy().train()
    complexity.measure(toy, toy_protocol())
    assert toy.training
    assert next(toy.parameters()).device.type == "cpu"


def test_a_part_that_reads_values_when_it_is_built_is_counted_too() -> None:
    class Reading(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.rate = torch.linspace(0, 1, 3)[1].item()

    assert complexity.measure(Reading, toy_protocol()).gflops == complexity.measure(Toy, toy_protocol()).gflops


def test_a_module_is_not_taken_for_another_whose_name_begins_alike() -> None:
    tally = Tally()
    for scope, units in ((("encoder", "encoder.layers.1"), 1), (("encoder", "encoder.layers.10"), 10), (("enc",), 100)):
        tally.units[scope, "aten::mm", "matmul"] += units * 10**9
    assert tally.gflops(FVCORE, "encoder.layers.1") == 1
    assert tally.gflops(FVCORE, "encoder.layers") == tally.gflops(FVCORE, "encoder") == 11
    assert tally.gflops(FVCORE) == 111


def test_frozen_parameters_are_counted_but_do_not_train() -> None:
    toy = Toy()
    toy.decoder.requires_grad_(False)
    total, trainable, _ = complexity.parameters(toy)
    assert (total, trainable) == (pytest.approx(573e-6), pytest.approx((573 - 288) * 1e-6))
