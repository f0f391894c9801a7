"""Published weights: the names of every layout, what is wrong with a checkpoint, and the same logits as its library."""

from typing import Any

import pytest
import torch
from torch import Tensor

from companion.architectures import make_architecture
from companion.errors import InputError
from companion.models import build
from companion.models.model import LanguageModel
from companion.models.weights import LAYOUTS, load_published


def llama() -> LanguageModel:
    return build(make_architecture("transformer", d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=50))


def xlstm() -> LanguageModel:
    return build(make_architecture("xlstm", d_model=32, n_layers=2, n_heads=2, vocab_size=50))


def published(model: LanguageModel, layout: str) -> dict[str, Tensor]:
    """A checkpoint as its publisher would name it, of a model's own weights."""
    found: dict[str, Tensor] = {}
    sizes: dict[str, list[int]] = {}
    mixer = model.blocks[0].mixer
    for name, parameter in model.state_dict().items():
        number = name.split(".")[1] if name.startswith("blocks.") else ""
        theirs = LAYOUTS[layout][name.replace(f"blocks.{number}.", "blocks.{n}.", 1) if number else name]
        rows = parameter.shape[0]
        sizes["mixer"] = list(mixer.widths) if ".qkv" in name else [rows // len(theirs)] * len(theirs)
        for part, value in zip(theirs, parameter.split(sizes["mixer"]), strict=True):
            found[part.format(n=number)] = value.clone()
    return found


@pytest.mark.parametrize(("make", "layout"), [(llama, "llama"), (xlstm, "xlstm")])
def test_every_weight_finds_its_place(make: Any, layout: str) -> None:
    model = make()
    weights = published(model, layout)
    loaded = load_published(make(), weights, layout)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_what_is_wrong_is_named() -> None:
    weights = published(xlstm(), "xlstm")
    name = "backbone.blocks.1.mlstm_layer.k.weight"
    with pytest.raises(InputError, match=f"'{name}' is missing"):
        load_published(xlstm(), {key: value for key, value in weights.items() if key != name}, "xlstm")
    with pytest.raises(InputError, match=r"'extra.bias' is not of this model \(1 name"):
        load_published(xlstm(), weights | {"extra.bias": torch.zeros(3)}, "xlstm")
    with pytest.raises(InputError, match=r"\(49, 32\), not \(50, 32\)"):
        load_published(xlstm(), weights | {"lm_head.weight": torch.zeros(49, 32)}, "xlstm")
    with pytest.raises(InputError, match="it is not of this architecture"):
        load_published(llama(), weights, "xlstm")
    with pytest.raises(InputError, match="layout 'gpt' is not one of xlstm, llama"):
        load_published(llama(), weights, "gpt")


@torch.no_grad()
def test_logits_of_llama() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "vocab_size": 100}
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6, **sizes)
    ).eval()
    ours = make_architecture("transformer", d_model=128, n_layers=3, n_heads=4, n_kv_heads=2, d_ff=384, vocab_size=100)
    _compare(theirs, load_published(build(ours), _scattered(theirs), "llama"))


@torch.no_grad()
def test_logits_of_xlstm() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.xLSTMConfig(
        hidden_size=128, num_heads=2, num_hidden_layers=3, vocab_size=100, autocast_kernel_dtype="float32",
        eps=0.0,  # theirs adds it to the normalizer, which the paper does not
    )  # fmt: skip
    theirs = transformers.xLSTMForCausalLM(config).eval()
    ours = build(make_architecture("xlstm", d_model=128, n_layers=3, n_heads=2, vocab_size=100), logit_cap=30.0)
    _compare(theirs, load_published(ours, _scattered(theirs), "xlstm"))


def _scattered(theirs: Any) -> dict[str, Tensor]:
    """Their weights, no two of them equal any more: gates and norms start as constants."""
    for parameter in theirs.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return dict(theirs.state_dict())


def _compare(theirs: Any, ours: LanguageModel) -> None:
    tokens = torch.randint(0, 100, (2, 70))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)
