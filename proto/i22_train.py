"""Exploration: training step of small models, eager / compiled / graph."""
import json, sys, time, os, gc
import torch
sys.path.insert(0, sys.argv[1])
from companion.models import build
from companion.architectures import make_architecture
OUT = os.environ.get("OUT", "/tmp")
SHAPES = {"5M": dict(d_model=256, n_layers=6, n_heads=4), "15M": dict(d_model=384, n_layers=8, n_heads=6), "86M": dict(d_model=768, n_layers=12, n_heads=12)}
XHEADS = {"5M": 4, "15M": 6, "86M": 6}
rows = []
def bench(fn, n=20, warm=5):
    for _ in range(warm): fn()
    torch.cuda.synchronize()
    ev = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]
    ev[0].record()
    for k in range(n): fn(); ev[k + 1].record()
    torch.cuda.synchronize()
    ts = sorted(ev[k].elapsed_time(ev[k + 1]) for k in range(n))
    return ts[n // 2]
def one(size, arch, T, modes, profile=False):
    torch._dynamo.reset(); gc.collect(); torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
    kw = dict(SHAPES[size])
    if arch == "xlstm": kw["n_heads"] = XHEADS[size]
    a = make_architecture(arch, **kw)
    model = build(a, device="cuda")
    opt = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-4), fused=True, capturable=True)
    x = torch.randint(0, a.vocab_size, (65536 // T, T + 1), device="cuda")
    def run(loss_fn):
        def step():
            with torch.autocast("cuda", torch.bfloat16):
                loss = loss_fn(x)
            loss.backward(); opt.step(); opt.zero_grad(set_to_none=True)
            return loss
        return step
    got = {"size": size, "arch": arch, "T": T}
    for mode in modes:
        t0 = time.time()
        try:
            if mode == "eager": got["eager"] = bench(run(model.loss))
            else:
                if "compiled" not in got or mode == "compiled":
                    compiled = torch.compile(model.loss, dynamic=False, fullgraph=True)
                    step = run(compiled)
                if mode == "compiled":
                    got["compiled"] = bench(step)
                    h0 = time.perf_counter(); step(); got["host"] = (time.perf_counter() - h0) * 1e3; torch.cuda.synchronize()
                if mode == "graph":
                    s = torch.cuda.Stream(); s.wait_stream(torch.cuda.current_stream())
                    with torch.cuda.stream(s):
                        for _ in range(3): step()
                    torch.cuda.current_stream().wait_stream(s); torch.cuda.synchronize()
                    g = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(g): step()
                    got["graph"] = bench(g.replay)
                    if profile:
                        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as p:
                            for _ in range(3): g.replay()
                            torch.cuda.synchronize()
                        ks = sorted(((e.key[:90], e.self_device_time_total / 3e3, e.count // 3) for e in p.key_averages()), key=lambda r: -r[1])[:28]
                        got["profile"] = ks
                    del g
        except Exception as e:
            got[mode + "_error"] = repr(e)[:400]
        got[mode + "_s"] = round(time.time() - t0, 1)
    got["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    rows.append(got); print({k: (round(v, 2) if isinstance(v, float) else v) for k, v in got.items() if k != "profile"}, flush=True)
    if profile and "profile" in got:
        for k in got["profile"]: print("   %-90s %8.3f ms x%d" % k, flush=True)
    json.dump(rows, open(OUT + "/train.json", "w"))
t0 = time.time()
plan = [("15M", a, T) for T in (2048, 8192, 512, 32768) for a in ("xlstm", "transformer")] + [("5M", "xlstm", 2048), ("86M", "xlstm", 8192), ("86M", "transformer", 8192)]
for size, arch, T in plan:
    if time.time() - t0 > float(sys.argv[2]): break
    one(size, arch, T, ["eager", "compiled", "graph"], profile=(T in (2048, 8192)))
