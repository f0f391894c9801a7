"""Models equal the accounting in parameters and products; prefill, steps and one pass agree; wrong input is named."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from companion.accounting import count_flops, num_params
from companion.accounting.conventions import PRODUCTS
from companion.accounting.inference import Precision, cache_bytes
from companion.architectures import PRESET_SIZES, Architecture, make_architecture, preset
from companion.errors import InputError
from companion.kernels.mlstm import checks
from companion.kernels.mlstm.ops import default_chunk_size
from companion.models import Memory, build, generate
from companion.models.model import LanguageModel

SMALL = {"d_model": 64, "n_layers": 4, "n_heads": 4, "vocab_size": 97}
SHAPES: dict[str, dict[str, Any]] = {
    "transformer": {"name": "transformer"},
    "grouped heads, norms": {"name": "transformer", "n_kv_heads": 2, "qk_norm": True},
    "windows": {"name": "transformer", "window": 5, "attention_every": 2},
    "other widths": {"name": "transformer", "d_qk": 8, "d_hv": 24},
    "xlstm": {"name": "xlstm"},
    "hybrid": {"name": "xlstm", "attention_every": 2, "attention_heads": 4, "n_kv_heads": 1},
    "no feed-forward, tied": {"name": "xlstm", "d_ff": 0, "tied_embeddings": True},
}


def shapes(case: str) -> Architecture:
    return make_architecture(**(SMALL | SHAPES[case]))


def model_of(case: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    """A small model whose gates depend on their input."""
    torch.manual_seed(0)
    model = build(shapes(case), dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gates" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype)


def some_tokens(batch: int = 2, length: int = 23) -> Tensor:
    return torch.randint(0, SMALL["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["transformer", "xlstm"])
@pytest.mark.parametrize("size", PRESET_SIZES)
def test_presets_have_the_counted_parameters(name: str, size: str) -> None:
    architecture = preset(name, size)
    model = build(architecture, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == num_params(architecture)


@pytest.mark.parametrize("case", SHAPES)
def test_other_shapes_have_the_counted_parameters(case: str) -> None:
    model = build(shapes(case), device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == num_params(shapes(case))


@pytest.mark.parametrize("case", SHAPES)
@torch.no_grad()
def test_prefill_then_steps_are_one_pass(case: str) -> None:
    model, tokens = model_of(case), some_tokens()
    whole = model(tokens)
    memory = Memory.empty(model.architecture, 2, 23, dtype=torch.float64)
    parts = [model(tokens[:, :9], memory)]
    prefix = memory.copy()
    parts.append(model(tokens[:, 9:15], memory))
    parts += [model(tokens[:, t : t + 1], memory) for t in range(15, 23)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-12)
    assert (memory.length, int(memory.position), prefix.length) == (23, 23, 9)
    again = [model(tokens[:, t : t + 1], prefix) for t in range(9, 23)]  # the copied prefix is untouched
    torch.testing.assert_close(torch.cat(again, dim=1), whole[:, 9:], rtol=0, atol=1e-12)
    torch.testing.assert_close(model(tokens, last=True), whole[:, -1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("case", "tolerance"), [("transformer", 0.02), ("xlstm", 0.05), ("hybrid", 0.05)])
@torch.no_grad()
def test_in_bfloat16_they_agree_to_its_rounding(case: str, tolerance: float) -> None:
    """Eight bits of a number; the exponentials of gates multiply their rounding."""
    model, tokens = model_of(case, torch.bfloat16), some_tokens()
    exact = model_of(case)(tokens)
    memory = Memory.empty(model.architecture, 2, 23)
    steps = torch.cat([model(tokens[:, :9], memory), *(model(tokens[:, t : t + 1], memory) for t in range(9, 23))], 1)
    for logits in (steps, model(tokens)):
        assert ((logits.double() - exact).norm() / exact.norm()).item() < tolerance


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("length", [3, 40])
def test_memory_holds_the_counted_bytes(case: str, length: int) -> None:
    memory = Memory.empty(shapes(case), 3, length)
    assert memory.num_bytes == 3 * cache_bytes(shapes(case), length, Precision())


@pytest.mark.parametrize("case", ["transformer", "grouped heads, norms", "other widths"])
def test_products_are_those_of_the_accounting(case: str) -> None:
    """Real passes: scores and weighted sums of all pairs, as plain attention computes them, masked ones too."""
    counted_equal(model_of(case, torch.float32), 16, 64)


@pytest.mark.parametrize("name", ["transformer", "xlstm", "hybrid"])
def test_products_of_large_models_are_those_of_the_accounting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes alone pass through the kernels' operators; the last chunk is a short one."""
    monkeypatch.setattr(checks, "choose_backend", lambda *_: "triton")
    more = {"attention_every": 4, "attention_heads": 16, "n_kv_heads": 4} if name == "hybrid" else {}
    architecture = preset("xlstm" if name == "hybrid" else name, "400m", **more)
    counted_equal(
        build(architecture, dtype=torch.bfloat16, device="meta"),
        1000,
        default_chunk_size(architecture.d_qk, torch.bfloat16),
    )


def counted_equal(model: LanguageModel, length: int, chunk_size: int) -> None:
    """What torch counts, forward and backward, is the accounting's, to the last FLOP."""
    tokens = some_tokens(2, length).to(model.unembedding.weight.device)
    expected = count_flops(model.architecture, length, replace(PRODUCTS, chunk_size=chunk_size))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        logits = model(tokens)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert forward.get_total_flops() == 2 * expected.forward.total
    assert backward.get_total_flops() == 2 * expected.backward.total


def test_the_start_is_as_published() -> None:
    model = build(make_architecture("xlstm", d_model=256, n_layers=3, n_heads=4, vocab_size=500))
    block = model.blocks[0]
    assert block.mixer.gates.bias.tolist() == [-10.0] * 4 + [3.0, 4.0, 5.0, 6.0]
    assert block.mixer.gates.weight.abs().max() == 0
    assert block.mixer.qkvo.weight.std().item() == pytest.approx((2 / (5 * 256)) ** 0.5, rel=0.02)
    assert block.ffn.down.weight.std().item() == pytest.approx(2 / (3 * 256**0.5), rel=0.02)
    assert block.mixer_norm.weight.unique().tolist() == [1.0]


@pytest.mark.parametrize("case", ["transformer", "hybrid"])
def test_recomputation_changes_no_gradient(case: str) -> None:
    model, tokens, gradients = model_of(case), some_tokens(), []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        model.loss(tokens).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(list(model.parameters()))
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("case", ["transformer", "hybrid"])
def test_the_compiler_sees_one_graph(case: str) -> None:
    """fullgraph refuses a break; the code that is generated is the compiler's affair."""
    model, tokens = build(make_architecture(**(SMALL | SHAPES[case] | {"n_layers": 2}))), some_tokens()
    torch._dynamo.reset()
    compiled = torch.compile(model.loss, fullgraph=True, dynamic=False, backend="eager")
    torch.testing.assert_close(compiled(tokens), model.loss(tokens))


def test_the_logits_are_bounded() -> None:
    architecture = shapes("xlstm")
    model = build(architecture, logit_cap=0.5)
    assert model(some_tokens()).abs().max() < 0.5


@torch.no_grad()
def test_generation_takes_the_likeliest_token_or_draws() -> None:
    model, prompt = model_of("hybrid"), some_tokens(2, 6)
    tokens = prompt
    for _ in range(5):
        tokens = torch.cat((tokens, model(tokens, last=True)[:, -1].argmax(-1, keepdim=True)), dim=1)
    assert torch.equal(generate(model, prompt, 5), tokens[:, 6:])
    draws = [generate(model, prompt, 8, temperature=2.0, generator=torch.Generator().manual_seed(k)) for k in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@torch.no_grad()
def test_wrong_input_is_named() -> None:
    model, tokens = model_of("xlstm"), some_tokens()
    other = Memory.empty(shapes("transformer"), 2, 30, dtype=torch.float64)
    with pytest.raises(InputError, match="memory: it is that of Transformer"):
        model(tokens, other)
    small = Memory.empty(model.architecture, 3, 10, dtype=torch.float64)
    with pytest.raises(InputError, match="memory: 2 sequences are given, it holds 3"):
        model(tokens, small)
    with pytest.raises(InputError, match="23 are given, which is beyond max_length 10"):
        model(torch.cat((tokens, tokens[:1])), small)
    for wrong in (torch.full((1, 3), 97), torch.full((1, 3), -1)):
        with pytest.raises(InputError, match="the vocabulary has 0 to 96"):
            generate(model, wrong, 2)
        with pytest.raises(InputError, match="the vocabulary has 0 to 96"):
            model(wrong)
    with pytest.raises(InputError, match=r"tokens: \(23,\) of torch\.int64"):
        model(tokens[0])
    with pytest.raises(InputError, match=r"of torch\.float32; they are"):
        model(tokens.float())
    transformer = model_of("transformer")
    with pytest.raises(InputError, match=r"keys and values are torch\.bfloat16, the model computes in torch\.float64"):
        transformer(tokens, Memory.empty(transformer.architecture, 2, 30))
    with pytest.raises(InputError, match="it is on meta, the tokens are on cpu"):
        model(tokens, Memory.empty(model.architecture, 2, 30, device="meta"))
    with pytest.raises(InputError, match="at least one of each"):
        generate(model, tokens[:, :0], 2)
    with pytest.raises(InputError, match="no layer for the mixer 'gated_delta'"):
        build(make_architecture("gated_deltanet", d_model=64, n_layers=2, n_heads=2), device="meta")
    with pytest.raises(InputError, match="several sizes at once"):
        build(make_architecture("transformer", d_model=np.array([64, 128]), n_layers=2, n_heads=2), device="meta")
    with pytest.raises(InputError, match="must be at least 1"):
        Memory.empty(model.architecture, 0, 10)
