"""Generation: a prompt is read at once, then one token a step; a step as a CUDA graph."""

import torch
from torch import Tensor

from companion.errors import InputError
from companion.models.memory import KeysValues, Memory
from companion.models.model import LanguageModel, check_tokens


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompt: Tensor,
    num_tokens: int,
    *,
    memory: Memory | None = None,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Tokens (B, num_tokens) that follow a prompt (B, P).

    Parameters
    ----------
    memory
        of the tokens before the prompt; by default there are none. It is changed.
    temperature
        0 takes the most likely token, otherwise tokens are drawn from softmax(logits / temperature).

    Raises
    ------
    InputError
        if the prompt is empty or holds a number outside of the vocabulary, or the memory does not fit.
    """
    check_tokens(model.architecture, prompt)
    if prompt.shape[1] == 0 or num_tokens < 1:
        raise InputError(f"generate: a prompt of {prompt.shape[1]} and {num_tokens} new tokens; at least one of each")
    if memory is None:
        length = prompt.shape[1] + num_tokens
        memory = Memory.empty(model.architecture, prompt.shape[0], length, dtype=model.dtype, device=prompt.device)
    found = []
    tokens = prompt
    for _ in range(num_tokens):
        logits = model(tokens, memory, last=True)[:, -1].float()
        if temperature > 0:
            tokens = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        else:
            tokens = logits.argmax(-1, keepdim=True)
        found.append(tokens)
    return torch.cat(found, dim=1)


class CapturedStep:
    """One generation step as a CUDA graph: launched at once, while its many small kernels otherwise wait for the host.

    The graph works on `memory`, and every call adds a token to it.

    Examples
    --------
    >>> step = CapturedStep(model, memory)  # doctest: +SKIP
    >>> logits = step(tokens)  # doctest: +SKIP
    """

    def __init__(self, model: LanguageModel, memory: Memory) -> None:
        if memory.position.device.type != "cuda":
            raise InputError(f"CapturedStep: needs a CUDA device; the memory is on {memory.position.device}")
        self.memory, self.dtype = memory, model.dtype
        self.tokens = torch.zeros(memory.batch_size, 1, dtype=torch.long, device=memory.position.device)
        # a first step changes states; the key and value that it keeps are overwritten by those of the next
        states = [tensor for layer in memory.layers if not isinstance(layer, KeysValues) for tensor in layer]
        changed = (*states, memory.position)
        kept, length = [tensor.clone() for tensor in changed], memory.length
        self.graph = torch.cuda.CUDAGraph()
        with torch.no_grad():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # kernels compile and workspaces are made before the capture
                model(self.tokens, memory)
                memory.length = length
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(self.graph):
                self.logits = model(self.tokens, memory)
        for tensor, before in zip(changed, kept, strict=True):
            tensor.copy_(before)
        memory.length = length

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (B, 1, V) after `tokens` (B, 1); the next call overwrites them."""
        self.memory.check(self.memory.architecture, tokens, self.dtype)
        self.tokens.copy_(tokens)
        self.graph.replay()
        self.memory.length += 1
        return self.logits
