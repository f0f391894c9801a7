import json, sys, time, os, gc
import torch
sys.path.insert(0, sys.argv[1])
from companion.models import build, Memory
from companion.architectures import preset
OUT = os.environ.get("OUT", "/tmp")
rows = []
def bench(fn, n=20, warm=5):
    for _ in range(warm): fn()
    torch.cuda.synchronize()
    ev = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]
    ev[0].record()
    for k in range(n): fn(); ev[k + 1].record()
    torch.cuda.synchronize()
    return sorted(ev[k].elapsed_time(ev[k + 1]) for k in range(n))[n // 2]
def say(**k):
    rows.append(k); print({a: (round(b, 4) if isinstance(b, float) else b) for a, b in k.items()}, flush=True); json.dump(rows, open(OUT + "/infer3.json", "w"))
x = torch.empty(2**31, dtype=torch.bfloat16, device="cuda"); y = torch.empty_like(x)
BW = 2 * 2**32 / bench(lambda: y.copy_(x)) * 1e3; del x, y
say(copy=BW / 1e12)
def capture(fn):
    s = torch.cuda.Stream(); s.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(s), torch.no_grad():
        for _ in range(2): fn()
    torch.cuda.current_stream().wait_stream(s); torch.cuda.synchronize()
    g = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(g): fn()
    return g
def profile(fn, n=3, top=14):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as p:
        for _ in range(n): fn()
        torch.cuda.synchronize()
    for e in sorted(p.key_averages(), key=lambda e: -e.self_device_time_total)[:top]:
        print("    %-80s %8.3f ms x%d" % (e.key[:80], e.self_device_time_total / n / 1e3, e.count // n), flush=True)
for arch, size in (("xlstm", "7b"), ("transformer", "7b"), ("xlstm", "400m"), ("transformer", "400m")):
    torch._dynamo.reset(); gc.collect(); torch.cuda.empty_cache()
    A = preset(arch, size)
    model = build(A, device="meta", dtype=torch.bfloat16).to_empty(device="cuda").initialize()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "gates" in n: p.add_(torch.randn_like(p) * 0.02)
    weights = (sum(p.numel() for p in model.parameters()) - A.vocab_size * A.d_model) * 2
    tokens = torch.randint(0, A.vocab_size, (1, 16000), device="cuda")
    mem = Memory.empty(A, 1, 16384 + 64, device="cuda")
    with torch.no_grad():
        model(tokens[:, :-1], mem, last=True)
        c = mem.copy()
        want = model.run(torch.cat((tokens[:, -1:],) * 2, 1), c.layers, c.position, False, False)[:, 0].float()   # two tokens: the general path
        c = mem.copy()
        got = model.run(tokens[:, -1:], c.layers, c.position, False, True)[:, 0].float()
    say(arch=arch, size=size, error=((got - want).norm() / want.norm()).item()); del c
    tok = tokens[:, -1:].clone()
    for name in ("plain", "compiled"):
        try:
            t0 = time.time()
            run = model.run if name == "plain" else torch.compile(model.run, dynamic=False, fullgraph=True)
            def f():
                mem.position.fill_(15999); return run(tok, mem.layers, mem.position, False, True)
            g = capture(f)
            t = bench(g.replay)
            kept = mem.num_bytes * 16000 / (16384 + 64) if arch == "transformer" else 2 * mem.num_bytes
            say(arch=arch, size=size, step=name, ms=t, share=(weights + kept) / t * 1e3 / BW, setup_s=time.time() - t0)
            profile(g.replay, 3, 14)
            del g
        except Exception as ex:
            say(arch=arch, size=size, step=name, error=repr(ex)[:800])
    if size == "7b" and arch == "transformer":
        tokens = torch.randint(0, A.vocab_size, (1, 16384), device="cuda")
        def pre():
            mem.position.zero_()
            with torch.no_grad(): comp(tokens, mem.layers, mem.position, True, True)
        comp = torch.compile(model.run, dynamic=False, fullgraph=True)
        say(arch=arch, ttft_compiled=bench(pre, 5, 2)); profile(pre, 1, 10)
    del model, mem
