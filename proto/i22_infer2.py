import json, sys, time, os, gc
import torch, torch._inductor.config as ic
sys.path.insert(0, sys.argv[1])
from companion.models import build, Memory
from companion.architectures import preset
OUT = os.environ.get("OUT", "/tmp")
exec(open("/tmp/x.py").read()) if False else None
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
    rows.append(k); print({a: (round(b, 4) if isinstance(b, float) else b) for a, b in k.items()}, flush=True); json.dump(rows, open(OUT + "/infer2.json", "w"))
x = torch.empty(2**31, dtype=torch.bfloat16, device="cuda"); y = torch.empty_like(x)
BW = 2 * 2**32 / bench(lambda: y.copy_(x)) * 1e3; del x, y
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16); b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
MM = 2 * 8192**3 / bench(lambda: a @ b) * 1e3; del a, b
say(copy=BW / 1e12, mm=MM / 1e12)
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
for arch in ("xlstm", "transformer"):
    torch._dynamo.reset(); gc.collect(); torch.cuda.empty_cache()
    A = preset(arch, "7b")
    model = build(A, device="meta", dtype=torch.bfloat16).to_empty(device="cuda").initialize()
    weights = (sum(p.numel() for p in model.parameters()) - A.vocab_size * A.d_model) * 2
    tokens = torch.randint(0, A.vocab_size, (1, 16384), device="cuda")
    mem = Memory.empty(A, 1, 16384 + 64, device="cuda")
    def pre(run):
        def f():
            mem.position.zero_()
            for l in mem.layers:
                if arch == "xlstm": l.C.zero_(); l.n.zero_(); l.m.fill_(-torch.inf)
            with torch.no_grad(): run(tokens, mem.layers, mem.position, True, True)
        return f
    try:
        e = bench(pre(model.run), 3, 1)
        t0 = time.time(); comp = torch.compile(model.run, dynamic=False, fullgraph=True)
        c = bench(pre(comp), 5, 2)
        nonemb = weights / 2 - A.vocab_size * A.d_model
        core = (4 * A.n_heads * A.d_qk * 16384 * A.n_layers / 2 * 16384) if arch == "transformer" else 0
        say(arch=arch, ttft_eager=e, ttft_compiled=c, compile_s=time.time() - t0, weight_share=2 * nonemb * 16384 / c * 1e3 / MM, with_core=(2 * nonemb * 16384 + core) / c * 1e3 / MM, peak=torch.cuda.max_memory_allocated() / 2**30)
        profile(pre(comp), 1, 16)
    except Exception as ex:
        say(arch=arch, error=repr(ex)[:500])
    tok = tokens[:, :1].clone()
    for name, conf in (("cdt", dict(coordinate_descent_tuning=True)), ("cdt+pdl", {"coordinate_descent_tuning": True, "triton.enable_pdl": True})):
        if arch == "transformer" and name == "cdt": continue
        try:
            torch._dynamo.reset()
            t0 = time.time()
            run = torch.compile(model.run, dynamic=False, fullgraph=True, options={"max_autotune": True, "max_autotune_gemm_backends": "ATEN,TRITON", **conf})
            def f():
                mem.position.fill_(16000); return run(tok, mem.layers, mem.position, False, True)
            g = capture(f)
            t = bench(g.replay)
            kept = mem.num_bytes * 16001 / (16384 + 64) if arch == "transformer" else 2 * mem.num_bytes
            say(arch=arch, step=name, ms=t, share=(weights + kept) / t * 1e3 / BW, setup_s=time.time() - t0)
            profile(g.replay, 3, 14)
            del g
        except Exception as ex:
            say(arch=arch, step=name, error=repr(ex)[:800])
    del model, mem
