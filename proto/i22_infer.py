import json, sys, time, os, gc
import torch
sys.path.insert(0, sys.argv[1])
from companion.models import build, Memory
from companion.models.generation import CapturedStep
from companion.architectures import preset, make_architecture
OUT = os.environ.get("OUT", "/tmp")
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
def say(**k):
    rows.append(k); print({a: (round(b, 4) if isinstance(b, float) else b) for a, b in k.items()}, flush=True); json.dump(rows, open(OUT + "/infer.json", "w"))
x = torch.empty(2**32 // 2, dtype=torch.bfloat16, device="cuda"); y = torch.empty_like(x)
copy = bench(lambda: y.copy_(x)); BW = 2 * 2**32 / copy * 1e3
# read-only bandwidth
z = bench(lambda: torch.sum(x.view(torch.int32), dtype=torch.int64)); 
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16); b = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
MM = 2 * 8192**3 / bench(lambda: a @ b) * 1e3
say(copy_TBps=BW / 1e12, sum_TBps=2**32 / z * 1e3 / 1e12, matmul_TFLOPs=MM / 1e12); del x, y, a, b
for n, k in ((4096, 4096), (12288, 4096), (21888, 4096), (4096, 10944), (50304, 4096), (2 * 10944, 4096)):
    w = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(max(1, 2**30 // (n * k)))]
    for B in (1, 8, 64):
        x = torch.randn(B, k, device="cuda", dtype=torch.bfloat16)
        g = torch.cuda.CUDAGraph()
        for m in w: x @ m.T
        with torch.cuda.graph(g):
            for m in w: x @ m.T
        t = bench(g.replay, 10, 2) / len(w)
        say(gemv=(n, k), B=B, us=t * 1e3, share=n * k * 2 / t * 1e3 / BW)
    del w
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
t00 = time.time()
for arch in ("xlstm", "transformer"):
    for size in ("7b", "400m"):
        if time.time() - t00 > float(sys.argv[2]): break
        torch._dynamo.reset(); gc.collect(); torch.cuda.empty_cache()
        A = preset(arch, size)
        with torch.device("meta"): pass
        model = build(A, device="meta", dtype=torch.bfloat16).to_empty(device="cuda").initialize()
        weights = sum(p.numel() for p in model.parameters()) * 2 - A.vocab_size * A.d_model * 2
        tokens = torch.randint(0, A.vocab_size, (1, 16384), device="cuda")
        # prefill
        try:
            mem = Memory.empty(A, 1, 16384 + 64, device="cuda")
            def pre(run):
                def f():
                    mem.position.zero_(); mem.length = 0
                    with torch.no_grad(): run(tokens, mem.layers, mem.position, True, True)
                return f
            from companion.accounting import forward_flops
            from companion.accounting.conventions import PAPER
            F = sum(v for k, v in vars(forward_flops(A, 16384, PAPER)).items() if k != "unembedding") if False else None
            e = bench(pre(model.run), 3, 1)
            t0 = time.time(); comp = torch.compile(model.run, dynamic=False, fullgraph=True)
            c = bench(pre(comp), 5, 2); ct = time.time() - t0
            nonemb = sum(p.numel() for n, p in model.named_parameters() if "embedding" not in n)
            say(arch=arch, size=size, ttft_eager=e, ttft_compiled=c, compile_s=ct, weight_flops_share=2 * nonemb * 16384 / c * 1e3 / MM)
            profile(pre(comp), 1, 16)
        except Exception as ex:
            say(arch=arch, size=size, prefill_error=repr(ex)[:600])
        for B in (1, 8):
            mem = Memory.empty(A, B, 16384 + 64, device="cuda")
            mem.position.fill_(16000); mem.length = 16000
            tok = torch.randint(0, A.vocab_size, (B, 1), device="cuda")
            for name, kw in (("plain", None), ("compiled", {}), ("autotune", {"mode": "max-autotune-no-cudagraphs"})):
                if name == "autotune" and (B != 1 or size == "400m"): continue
                try:
                    torch._dynamo.reset()
                    run = model.run if kw is None else torch.compile(model.run, dynamic=False, fullgraph=True, **kw)
                    t0 = time.time()
                    def f():
                        mem.position.fill_(16000); return run(tok, mem.layers, mem.position, False, True)
                    g = capture(f)
                    t = bench(g.replay)
                    kept = mem.num_bytes * 16001 / (16384 + 64) if arch == "transformer" else 2 * mem.num_bytes
                    say(arch=arch, size=size, B=B, step=name, ms=t, share_of_copy=(weights + kept) / t * 1e3 / BW, setup_s=time.time() - t0)
                    profile(g.replay, 3, 14)
                    del g
                except Exception as ex:
                    say(arch=arch, size=size, B=B, step=name, error=repr(ex)[:600])
            del mem
        del model
