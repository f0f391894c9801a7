import json, sys, time, os, gc, copy
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
    rows.append(k); print({a: (round(b, 5) if isinstance(b, float) else b) for a, b in k.items()}, flush=True); json.dump(rows, open(OUT + "/infer5.json", "w"))
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
rel = lambda a, b: ((a.double() - b.double()).norm() / b.double().norm()).item()
for arch in ("transformer", "xlstm"):  # accuracy: bf16 step and general path against float32
    A = preset(arch, "400m")
    torch.manual_seed(0)
    exact = build(A, device="cuda")
    with torch.no_grad():
        for n, p in exact.named_parameters():
            if "gates" in n: p.add_(torch.randn_like(p) * 0.02)
            p.copy_(p.bfloat16())
    model = copy.deepcopy(exact).to(torch.bfloat16)
    tokens = torch.randint(0, A.vocab_size, (1, 2001), device="cuda")
    with torch.no_grad():
        want = exact(tokens, last=True)[:, 0]
        whole = model(tokens, last=True)[:, 0]
        mem = Memory.empty(A, 1, 2100, device="cuda"); model(tokens[:, :-1], mem, last=True)
        c = mem.copy(); two = model.run(torch.cat((tokens[:, -1:],) * 2, 1), c.layers, c.position, False, False)[:, 0]
        c = mem.copy(); step = model(tokens[:, -1:], c)[:, 0]
        m32 = Memory.empty(A, 1, 2100, device="cuda", dtype=torch.float32); exact(tokens[:, :-1], m32, last=True)
        s32 = exact(tokens[:, -1:], m32)[:, 0]
    say(arch=arch, whole=rel(whole, want), general=rel(two, want), step=rel(step, want), step_to_general=rel(step, two), float32_step=rel(s32, want))
    del exact, model, mem, m32, c
for arch in ("transformer", "xlstm"):
    gc.collect(); torch.cuda.empty_cache()
    A = preset(arch, "7b")
    model = build(A, device="meta", dtype=torch.bfloat16).to_empty(device="cuda").initialize()
    weights = (sum(p.numel() for p in model.parameters()) - A.vocab_size * A.d_model) * 2
    for B, T in ((1, 16000), (1, 2000), (8, 16000)):
        mem = Memory.empty(A, B, T + 64, device="cuda")
        tok = torch.randint(0, A.vocab_size, (B, 1), device="cuda")
        def f():
            mem.position.fill_(T); return model.run(tok, mem.layers, mem.position, False, True)
        try:
            g = capture(f); t = bench(g.replay)
            kept = mem.num_bytes * (T + 1) / (T + 64) if arch == "transformer" else 2 * mem.num_bytes
            say(arch=arch, B=B, T=T, ms=t, share=(weights + kept) / t * 1e3 / BW)
            if (B, T) == (1, 16000):
                with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as p:
                    for _ in range(3): g.replay()
                    torch.cuda.synchronize()
                for e in sorted(p.key_averages(), key=lambda e: -e.self_device_time_total)[:6]:
                    print("    %-60s %8.3f ms x%d" % (e.key[:60], e.self_device_time_total / 3e3, e.count // 3), flush=True)
            del g
        except Exception as ex:
            say(arch=arch, B=B, T=T, error=repr(ex)[:500])
        del mem
    del model
