"""Published weights in our layout: xLSTM 7B as the `transformers` library names them, and Llama-type checkpoints."""

from collections.abc import Mapping

import torch
from torch import Tensor

from companion.errors import InputError
from companion.models.model import LanguageModel

#: Ours: theirs, of which several are stacked along the first dimension. {n} is the number of a block.
LAYOUTS: dict[str, dict[str, tuple[str, ...]]] = {
    "xlstm": {
        "embedding.weight": ("backbone.embeddings.weight",),
        "blocks.{n}.mixer_norm.weight": ("backbone.blocks.{n}.norm_mlstm.weight",),
        "blocks.{n}.mixer.qkvo.weight": tuple(
            f"backbone.blocks.{{n}}.mlstm_layer.{name}.weight" for name in ("q", "k", "v", "ogate_preact")
        ),
        "blocks.{n}.mixer.gates.weight": tuple(
            f"backbone.blocks.{{n}}.mlstm_layer.{name}_preact.weight" for name in ("igate", "fgate")
        ),
        "blocks.{n}.mixer.gates.bias": tuple(
            f"backbone.blocks.{{n}}.mlstm_layer.{name}_preact.bias" for name in ("igate", "fgate")
        ),
        "blocks.{n}.mixer.norm.weight": ("backbone.blocks.{n}.mlstm_layer.multihead_norm.weight",),
        "blocks.{n}.mixer.out.weight": ("backbone.blocks.{n}.mlstm_layer.out_proj.weight",),
        "blocks.{n}.ffn_norm.weight": ("backbone.blocks.{n}.norm_ffn.weight",),
        "blocks.{n}.ffn.gate_up.weight": (
            "backbone.blocks.{n}.ffn.proj_up_gate.weight",
            "backbone.blocks.{n}.ffn.proj_up.weight",
        ),
        "blocks.{n}.ffn.down.weight": ("backbone.blocks.{n}.ffn.proj_down.weight",),
        "norm.weight": ("backbone.out_norm.weight",),
        "unembedding.weight": ("lm_head.weight",),
    },
    "llama": {
        "embedding.weight": ("model.embed_tokens.weight",),
        "blocks.{n}.mixer_norm.weight": ("model.layers.{n}.input_layernorm.weight",),
        "blocks.{n}.mixer.qkv.weight": tuple(f"model.layers.{{n}}.self_attn.{name}_proj.weight" for name in "qkv"),
        "blocks.{n}.mixer.out.weight": ("model.layers.{n}.self_attn.o_proj.weight",),
        "blocks.{n}.ffn_norm.weight": ("model.layers.{n}.post_attention_layernorm.weight",),
        "blocks.{n}.ffn.gate_up.weight": (
            "model.layers.{n}.mlp.gate_proj.weight",
            "model.layers.{n}.mlp.up_proj.weight",
        ),
        "blocks.{n}.ffn.down.weight": ("model.layers.{n}.mlp.down_proj.weight",),
        "norm.weight": ("model.norm.weight",),
        "unembedding.weight": ("lm_head.weight",),
    },
}


def load_published(model: LanguageModel, weights: Mapping[str, Tensor], layout: str) -> LanguageModel:
    """Give a model the weights of a published checkpoint.

    Parameters
    ----------
    model
        of the checkpoint's architecture.
    weights
        tensors by the names of the checkpoint.
    layout
        `xlstm` (`xLSTMForCausalLM`) or `llama` (`LlamaForCausalLM`).

    Raises
    ------
    InputError
        for a name that is missing or left over, or a shape that differs; the message names it.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    left = dict(weights)
    made = {}
    for ours, parameter in model.state_dict().items():
        number = ours.split(".")[1] if ours.startswith("blocks.") else ""
        pattern = ours.replace(f"blocks.{number}.", "blocks.{n}.", 1) if number else ours
        if pattern not in LAYOUTS[layout]:
            raise InputError(f"layout {layout!r} has no {pattern}: it is not of this architecture")
        names = [name.format(n=number) for name in LAYOUTS[layout][pattern]]
        if ours == "unembedding.weight" and model.architecture.tied_embeddings and names[0] not in left:
            names = list(LAYOUTS[layout]["embedding.weight"])
            left.setdefault(names[0], weights.get(names[0], parameter))
        if missing := [name for name in names if name not in left]:
            raise InputError(f"weights: {missing[0]!r} is missing")
        made[ours] = torch.cat([left.pop(name) for name in names])
        if made[ours].shape != parameter.shape:
            raise InputError(f"weights: {' + '.join(names)} is {tuple(made[ours].shape)}, not {tuple(parameter.shape)}")
    if left:
        raise InputError(f"weights: {next(iter(left))!r} is not of this model ({len(left)} names left over)")
    model.load_state_dict(made)
    return model
