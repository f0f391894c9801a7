"""On a CUDA GPU: the source gives the tokens of the CPU, bit for bit."""

import pytest
import torch

from companion.study.corpus import Source, measure_floor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]


@pytest.mark.parametrize("vocab_size", [16, 1024, 65536])
@pytest.mark.parametrize(
    ("first", "number", "context_length"), [(0, 64, 1024), ((1 << 40) + 1, 100, 333), (5, 3, 5000)]
)
def test_the_same_tokens(vocab_size: int, first: int, number: int, context_length: int) -> None:
    source = Source(seed=7, vocab_size=vocab_size)
    found = source.sequences(first, number, context_length, "cuda")
    assert found.device.type == "cuda"
    assert found.dtype == torch.int64
    assert torch.equal(found.cpu(), source.sequences(first, number, context_length))


def test_held_out_tokens() -> None:
    source = Source()
    assert torch.equal(source.held_out(70, 500, "cuda").cpu(), source.held_out(70, 500))


def test_entropies() -> None:
    grammar = Source().grammar
    on_gpu, on_cpu = (measure_floor(grammar, 256, documents=20, device=device) for device in ("cuda", "cpu"))
    assert on_gpu.loss == pytest.approx(on_cpu.loss, abs=1e-10)
