"""Ways to compute a step: what each of them promises holds for every family, and for a run that is killed."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, small
from torch import Tensor, nn
from training.test_loop import RECIPE, train, weights
from training.test_waits import padded_batch

from detrbench import models
from detrbench.data.loading import Batch
from detrbench.errors import Diverged, EnvironmentLacking, UsageError
from detrbench.models.detector import Detector
from detrbench.results.folder import read_lines
from detrbench.training import checkpoint, execution, loop, optimiser
from detrbench.training.execution import FULL, Precision, prepare
from detrbench.training.log import Log
from detrbench.training.recipe import BF16, FLOAT32, FP16, Recipe
from detrbench.training.step import Part, train_step

CPU = torch.device("cpu")
# One for each encoder, decoder, kind of query and training part; the others are made of the same parts.
QUICK = ("dac_detr", "dn_deformable_detr", "focus_detr", "lite_dino", "sparse_detr")
EACH = [family if family in QUICK else pytest.param(family, marks=pytest.mark.full) for family in FAMILIES]


def take(detector: Detector, recipe: Recipe, precision: Precision = FULL, steps: int = 1) -> tuple[Any, Tensor]:
    """Loss terms and gradient norm of the last of so many steps."""
    optim = optimiser.build(detector, recipe)
    for _ in range(steps):
        found = train_step(detector.train(), optim, Part.of([padded_batch()]), 0.1, 1.0, precision=precision)
    return found


def gradients(detector: Detector) -> dict[str, Tensor]:
    return {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}


# ----------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(("name", "dtype"), [(FLOAT32, torch.float32), (BF16, torch.bfloat16), (FP16, torch.float16)])
def test_a_forward_computes_in_the_type_that_is_asked_for(name: str, dtype: torch.dtype) -> None:
    with Precision(name, CPU).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


@pytest.mark.parametrize("family", EACH)
def test_losses_in_half_precision_are_nearly_those_in_float32_and_weights_move(family: str) -> None:
    expected, _ = take(small(family, 5), Recipe())
    for name in (BF16, FP16):
        detector, precision = small(family, 5), Precision(name, CPU)
        before = {name: parameter.clone() for name, parameter in detector.named_parameters()}
        if name == FP16:
            precision.scaler.update(2.0**7)
        losses, norm = take(detector, Recipe(), precision)
        # Of scores that are near each other, others may be the best: RT-DETR's losses differ most then, whose contents
        # are those tokens; then DINO's. MS-DETR's queries are given an object or none by a threshold.
        most = {"rt_detr": 0.06, "rt_detr_v2": 0.06, "ms_deformable_detr": 0.08}.get(family, 0.04)
        assert losses["total"] == pytest.approx(expected["total"], rel=most)
        assert losses != expected  # so it was computed in half precision
        assert {p.dtype for p in detector.parameters()} == {torch.float32}
        assert math.isfinite(norm)
        moved = [name for name, parameter in detector.named_parameters() if not torch.equal(parameter, before[name])]
        assert any(name.startswith("backbone.") for name in moved)
        assert any(name.startswith("decoder.") for name in moved)


def spoil(parameter: nn.Parameter) -> Any:
    return parameter.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor(0), math.inf))


def test_a_step_whose_gradients_overflow_changes_nothing_but_the_scale() -> None:
    detector, precision = small("sparse_detr", 5).train(), Precision(FP16, CPU)
    precision.scaler.update(2.0**8)
    optim, part = optimiser.build(detector, Recipe()), Part.of([padded_batch()])

    def step() -> float:
        return float(train_step(detector, optim, part, 0.1, 1.0, precision=precision)[1])

    assert math.isfinite(step())
    before = [parameter.clone() for parameter in detector.parameters()]
    moments = [state["exp_avg"].clone() for state in optim.state.values()]
    spoilt = spoil(next(detector.decoder.parameters()))
    assert not math.isfinite(step())
    assert precision.scaler.get_scale() == 2.0**7
    assert all(torch.equal(a, b) for a, b in zip(before, detector.parameters()))
    assert all(torch.equal(a, state["exp_avg"]) for a, state in zip(moments, optim.state.values()))
    spoilt.remove()
    assert math.isfinite(step())
    assert precision.scaler.get_scale() == 2.0**7
    assert not all(torch.equal(a, b) for a, b in zip(before, detector.parameters()))


def test_the_gradient_is_clipped_as_it_is_without_a_scale() -> None:
    """Half of the float32 norm would be one that was clipped while it was still scaled."""
    norms = []
    for scale in (2.0**6, 2.0**8):
        detector, precision = small("deformable_detr", 5), Precision(FP16, CPU)
        precision.scaler.update(scale)
        norms.append(float(take(detector, Recipe(), precision)[1]))
        clipped = torch.stack([gradient.norm() for gradient in gradients(detector).values()]).norm()
        assert float(clipped) == pytest.approx(0.1, rel=1e-3)
    expected = float(take(small("deformable_detr", 5), Recipe())[1])
    assert norms == pytest.approx([expected] * 2, rel=0.05)


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scales that start at 256 and double behind every three steps that went well."""
    made = torch.amp.GradScaler

    def scaler(*given: Any, **named: Any) -> torch.amp.GradScaler:
        return made(*given, init_scale=2.0**8, growth_interval=3, **named)

    monkeypatch.setattr(torch.amp, "GradScaler", scaler)


@pytest.mark.usefixtures("growing")
def test_a_run_with_all_of_them_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "EVERY", 1)
    asked = {"fused_adamw": True, "channels_last": True, "activation_checkpointing": True}
    recipe, log = dataclasses.replace(RECIPE, precision=FP16, **asked), tmp_path / "log.jsonl"
    train(tmp_path / "whole", recipe)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", recipe, stop_after=5, log=log)
    train(tmp_path / "killed", recipe, log=log)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    kept = [torch.load(tmp_path / name / checkpoint.STATES[0])["scaler"] for name in ("whole", "killed")]
    assert kept[0] == kept[1]
    assert (kept[0]["scale"], kept[0]["_growth_tracker"]) == (2.0**10, 0)
    lines = list(read_lines(log))
    assert [line["loss_scale"] for line in lines] == [256, 256, 512, 512, 512, 1024]
    assert [line["overflows"] for line in lines] == [0] * 6


def test_the_log_tells_steps_that_overflowed_and_the_norm_of_the_others(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl", 0, "cpu")
    for norm in (3.0, math.inf, math.nan, 5.0):
        log.add({"total": 1.0}, torch.tensor(norm), 2)
    log.write(4, 1.0, 1e-4, 1.0, {"loss_scale": 64.0})
    log.add({"total": 1.0}, torch.tensor(math.inf), 2)
    log.write(5, 1.25, 1e-4, 1.0, {"loss_scale": 32.0})
    lines = list(read_lines(tmp_path / "log.jsonl"))
    assert [(line["gradient_norm"], line["overflows"]) for line in lines] == [(4.0, 2), (None, 1)]


def test_gradients_that_overflow_without_end_are_a_training_that_diverged(tmp_path: Path) -> None:
    precision = Precision(FP16, CPU)
    precision.scaler.update(execution.LEAST_SCALE)
    precision.check()
    precision.scaler.update(execution.LEAST_SCALE / 2)
    with pytest.raises(Diverged, match="gradients are not finite in fp16") as caught:
        precision.check()
    assert caught.value.hint == "--set precision=bf16"


# ------------------------------------------------------------------------------------------- activation checkpointing


def kept_for_the_gradient(detector: Detector) -> int:
    """Bytes that the graph of the encoder keeps, each tensor once, parameters aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in detector.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    batch = padded_batch()
    tokens = detector.neck(detector.backbone(batch.images), batch.masks, batch.images.shape[-2:])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        assert detector.encoder(tokens, detector.proposal_head, "all").memory.requires_grad
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def fresh(family: str, **options: Any) -> Detector:
    """With dropout, which the second computation has to repeat."""
    detector = small(family, 5)
    return models.create(f"{family}_tiny", **{**detector.spec.options, "dropout": 0.1, **options}).train()


@pytest.mark.parametrize("family", [family for family in EACH if "rt_detr" not in str(family)])
@pytest.mark.parametrize("precision", [FLOAT32, pytest.param(BF16, marks=pytest.mark.full)])
def test_recomputed_layers_keep_less_and_give_the_same_gradients(family: str, precision: str) -> None:
    found, kept = [], []
    for recipe in (Recipe(), Recipe(activation_checkpointing=True)):
        torch.manual_seed(0)
        detector = fresh(family)
        prepare(detector, recipe)
        losses, _ = take(detector, recipe, Precision(precision, CPU))
        found.append((losses, gradients(detector)))
        kept.append(kept_for_the_gradient(detector))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(gradient, found[1][1][name]) for name, gradient in found[0][1].items())
    # The fusion of levels is kept: computed twice, its norms would count a batch twice.
    assert kept[1] < (0.8 if family == "salience_detr" else 0.6) * kept[0]


def test_an_encoder_without_layers_has_nothing_to_recompute() -> None:
    detector = small("deformable_detr", 5)
    detector.encoder = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"^activation_checkpointing: the encoder 'deformable' has no layers"):
        prepare(detector, Recipe(activation_checkpointing=True))


# ------------------------------------------------------------------------------------------- memory format, optimiser


@pytest.mark.full
@pytest.mark.parametrize("backbone", ["resnet50", "swin_tiny"])
def test_channels_last_gives_the_same_features(backbone: str) -> None:
    detector = models.create("deformable_detr_tiny", backbone=backbone, num_queries=10).eval()
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = detector.backbone(images)
        prepare(detector, Recipe(channels_last=True))
        for one, other in zip(expected, detector.backbone(images), strict=True):
            assert float((one - other).abs().max()) < 1e-4 * float(one.abs().max())


@pytest.mark.parametrize("family", ["sparse_detr", pytest.param("lite_dino", marks=pytest.mark.full)])
def test_channels_last_computes_the_same(family: str) -> None:
    expected, norm = take(small(family, 5), Recipe())
    detector = small(family, 5)
    prepare(detector, Recipe(channels_last=True))
    formats = []

    def note(module: nn.Module, given: Any, out: Tensor) -> None:
        formats.append(out.is_contiguous(memory_format=torch.channels_last))

    for module in detector.backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    losses, found = take(detector, Recipe(channels_last=True))
    assert formats
    assert all(formats)
    assert losses == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert float(found) == pytest.approx(float(norm), rel=1e-2)


def test_a_fused_step_of_the_optimiser_is_that_of_the_others() -> None:
    found = []
    for recipe in (Recipe(), Recipe(fused_adamw=True)):
        detector = small("sparse_detr", 5)
        take(detector, recipe, steps=1)
        found.append(dict(detector.named_parameters()))
        assert bool(optimiser.build(detector, recipe).defaults["fused"]) == recipe.fused_adamw
    for name, parameter in found[0].items():
        torch.testing.assert_close(found[1][name], parameter, rtol=0, atol=1e-6)


def test_what_a_recipe_asks_for_reaches_its_training(tmp_path: Path) -> None:
    plain = dataclasses.replace(RECIPE, epochs=1, batch_size=5, ema=0.0, checkpoint_every_steps=None)
    train(tmp_path / "plain", plain)
    expected = weights(tmp_path / "plain")
    for option, value in (("fused_adamw", True), ("channels_last", True), ("precision", BF16)):
        train(tmp_path / option, dataclasses.replace(plain, **{option: value}))
        found = weights(tmp_path / option)
        assert not all(torch.equal(tensor, found[name]) for name, tensor in expected.items()), option
        assert all(torch.allclose(tensor, found[name], atol=1e-2) for name, tensor in expected.items()), option
    train(tmp_path / "recomputed", dataclasses.replace(plain, activation_checkpointing=True))
    found = weights(tmp_path / "recomputed")
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


# ------------------------------------------------------------------------------------------------------- compilation


def compiled(detector: Detector) -> set[str]:
    return {name for name, module in detector.named_modules() if module._compiled_call_impl is not None}


def test_backbone_and_layers_are_compiled_and_copies_of_them_are_not() -> None:
    detector = small("lite_dino", 5)
    names = set(detector.state_dict())
    prepare(detector, Recipe(compile=True))
    layers = {f"{kind}.layers.{number}" for kind in ("encoder", "decoder") for number in range(2)}
    assert compiled(detector) == {"backbone", *layers}
    assert set(detector.state_dict()) == names
    assert compiled(copy.deepcopy(detector)) == set()  # as the moving average is made


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code is traced and differentiated, but run by PyTorch: the kernels that Inductor writes take minutes."""
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: compile_(self, backend="aot_eager", **how))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.full
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("family", "recomputed"),
    [
        ("dac_detr", False),
        ("dn_deformable_detr", False),
        ("focus_detr", True),
        ("lite_dino", True),
        ("sparse_detr", False),
    ],
)
def test_whole_layers_are_compiled_once_for_images_of_any_size(family: str, recomputed: bool) -> None:
    plain, detector = small(family, 5).train(), small(family, 5).train()
    prepare(detector, Recipe(compile=True, activation_checkpointing=recomputed))
    optims = [optimiser.build(each, Recipe()) for each in (plain, detector)]
    for height, width in ((64, 96), (96, 64), (80, 112), (128, 96)):
        part = Part.of([resized(padded_batch(), height, width)])
        (expected, norm), (losses, found) = (
            train_step(each, optim, part, 0.1, 1.0) for each, optim in zip((plain, detector), optims)
        )
        assert losses == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert float(found) == pytest.approx(float(norm), rel=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 6


def resized(batch: Batch, height: int, width: int) -> Batch:
    """Other images of that size, padded at the right."""
    images = torch.randn(len(batch.images), 3, height, width, generator=torch.Generator().manual_seed(height))
    masks = torch.zeros(len(images), height, width, dtype=torch.bool)
    masks[1:, :, width * 2 // 3 :] = True
    return dataclasses.replace(batch, images=images, masks=masks)


@pytest.mark.full
@pytest.mark.usefixtures("traced")
def test_a_compiled_run_goes_on_exactly_and_is_evaluated_uncompiled(tmp_path: Path) -> None:
    recipe, seen = dataclasses.replace(RECIPE, compile=True, ema=0.0), []

    def evaluate(detector: Detector) -> dict[str, float | None]:
        before = torch._dynamo.utils.counters["frames"]["total"]
        detector(torch.zeros(1, 3, 64, 160))
        seen.append(torch._dynamo.utils.counters["frames"]["total"] - before)
        return {"AP": 1.0}

    train(tmp_path / "whole", recipe, evaluate=evaluate)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", recipe, stop_after=4)
    train(tmp_path / "killed", recipe)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert seen == [0, 0]


def test_what_does_not_compile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch._dynamo.exc.TorchDynamoException("no working C++ compiler\nmore of it")

    monkeypatch.setattr(Detector, "forward", fail)
    with pytest.raises(EnvironmentLacking, match=r"^torch\.compile failed: no working C\+\+ compiler$") as caught:
        train(tmp_path)
    assert caught.value.hint == "--set compile=false"
