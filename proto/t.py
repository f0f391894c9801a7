import os; os.environ["TRITON_INTERPRET"]="1"
import torch; from matvec import run
torch.manual_seed(0)
for mode,K in ((0,96),(1,96),(2,80)):
    w=torch.randn(37,K); x=torch.randn(2,2*K if mode==2 else K); g=torch.rand(K); r=torch.randn(2,37)
    f=x if mode==0 else torch.nn.functional.rms_norm(x,(K,),g,1e-6) if mode==1 else torch.nn.functional.silu(x[:,:K])*x[:,K:]
    print((run(x,w,mode,g,r,4,32,pdl=False)-(f@w.T+r)).abs().max())
