import csv,gzip,sys,time,collections,math
import numpy as np
import os
D=os.environ.get("MAINSTAY_DATA","../shared/data")+"/traces/openb/"
def nodes():
    r=list(csv.DictReader(open(D+"openb_node_list_gpu_node.csv")))
    r.sort(key=lambda x:x["sn"])
    return r
def pods(name):
    return list(csv.DictReader(gzip.open(D+f"pods/openb_pod_list_{name}.csv.gz","rt")))
class World:
    def __init__(s):
        r=nodes(); N=len(r); s.N=N
        s.cpu=np.array([int(x["cpu_milli"]) for x in r]); s.mem=np.array([int(x["memory_mib"]) for x in r])
        g=np.array([int(x["gpu"]) for x in r]); s.ng=g
        s.gpu=np.where(np.arange(8)[None]<g[:,None],1000,0)
        s.models=sorted({x["model"] for x in r}); s.model=np.array([s.models.index(x["model"]) for x in r])
        s.cap=int(g.sum())*1000
def key(p): return (int(p["cpu_milli"]),int(p["memory_mib"]),int(p["num_gpu"]),int(p["gpu_milli"]) if int(p["num_gpu"]) else 0,p.get("gpu_spec") or "")
class Mix:
    def __init__(s,world,plist,cover=.95):
        c=collections.Counter((k[0],k[3],k[2],k[4]) for k in map(key,plist))
        tot=sum(c.values()); acc=0; out=[]
        for k,n in sorted(c.items(),key=lambda kn:(-kn[1],kn[0])):
            out.append((k,n)); acc+=n
            if acc/tot>=cover: break
        tot=sum(n for _,n in out)
        s.p=np.array([n/tot for _,n in out]); s.cpu=np.array([k[0] for k,_ in out]); s.milli=np.array([k[1] for k,_ in out]); s.cnt=np.array([k[2] for k,_ in out])
        s.ok=np.array([[not k[3] or m in k[3].split("|") for m in world.models] for k,_ in out]).T  # model x M
        g=s.cnt>0
        s.pc=s.p[~g].sum()   # cpu only -> whole idle
        s.p,s.cpu,s.milli,s.cnt,s.ok=s.p[g],s.cpu[g],s.milli[g],s.cnt[g],s.ok[:,g]
        s.U,s.u=np.unique(s.milli,return_inverse=True)
    def F(s,cpu,gpu,model):
        ge=gpu[:,:,None]>=s.U; n=ge.sum(1)                     # K,U
        small=(gpu[:,:,None]*~ge).sum(1); idle=gpu.sum(1)
        fits=(cpu[:,None]>=s.cpu)&(n[:,s.u]>=s.cnt)&s.ok[model]
        return s.pc*idle+(np.where(fits,small[:,s.u],idle[:,None])*s.p).sum(1)
def stream(plist,seed,cap):
    rng=np.random.default_rng(seed)
    ks=[key(p) for p in plist]
    req=lambda k:k[2]*k[3]
    total=sum(map(req,ks)); extra=[]
    while total<1.3*cap:
        k=ks[rng.integers(len(ks))]; extra.append(k); total+=req(k)
    allk=ks+extra
    # shuffle original then appended? shuffle all
    return [ks[i] for i in rng.permutation(len(ks))]+extra
def run(listname,seed,policy,plist=None,mixlist=None,verbose=False):
    w=World(); plist=plist or pods(listname); mix=Mix(w,mixlist or plist)
    ks=stream(plist,seed,w.cap); rng=np.random.default_rng(1000+seed)
    idle=w.gpu.sum(1); arrived=0; used=0; at=[]
    pol=policy(w,mix,rng)
    for k in ks:
        cpu,mem,num,milli,spec=k
        m=(w.cpu>=cpu)&(w.mem>=mem)
        if spec: m&=np.isin(w.model,[i for i,x in enumerate(w.models) if x in spec.split("|")])
        if num: m&=((w.gpu>=milli).sum(1)>=num)
        arrived+=num*milli
        idx=np.flatnonzero(m)
        if idx.size:
            n,g=pol.pick(k,idx)
            if num:
                if num==1 and milli<1000: w.gpu[n,g]-=milli
                else:
                    gg=np.flatnonzero(w.gpu[n]>=milli)[:num]; w.gpu[n,gg]-=milli
                used+=num*milli
            w.cpu[n]-=cpu; w.mem[n]-=mem
            pol.changed(n)
        L=round(100*arrived/w.cap)
        if L==100: at.append(100*used/w.cap)
        if L>100: break
    return float(np.mean(at))
class Random:
    def __init__(s,w,mix,rng): s.w,s.rng=w,rng
    def pick(s,k,idx):
        n=idx[s.rng.integers(idx.size)]
        c=np.flatnonzero(s.w.gpu[n]>=k[3]) if k[2] else [0]
        return n,c[s.rng.integers(len(c))]
    def changed(s,n): pass
def tightest(row,milli):
    return int(np.where(row>=milli,row,9999).argmin())
MAXCPU=128000
class BestFit(Random):
    def pick(s,k,idx):
        w=s.w; sc=(1-((w.cpu[idx]-k[0])/MAXCPU*.5+(w.gpu[idx].sum(1)-k[2]*k[3])/8000*.5))*100
        sc=sc.astype(int); lo,hi=sc.min(),sc.max()
        if hi>lo: sc=((sc-lo)*100)//(hi-lo)
        n=idx[int(sc.argmax())]
        return n,tightest(w.gpu[n],k[3])
class FGD:
    card=0.
    intgpu=True
    def __init__(s,w,mix,rng):
        s.w,s.mix=w,mix; s.Fn=mix.F(w.cpu,w.gpu,w.model); s.log=[]; s.cache={}
    def changed(s,n):
        s.Fn[n]=s.mix.F(s.w.cpu[n:n+1],s.w.gpu[n:n+1],s.w.model[n:n+1])[0]; s.log.append(n)
    def value(s,k,nodes):   # delta F and gpu for nodes (feasible or not; garbage where infeasible)
        w=s.w; cpu,mem,num,milli,spec=k
        if num==0: return s.mix.F(w.cpu[nodes]-cpu,w.gpu[nodes],w.model[nodes])-s.Fn[nodes],np.zeros(nodes.size,int)
        G=w.gpu[nodes]
        if num==1 and milli<1000:
            order=np.sort(np.unique(np.where(G>=milli,G,0)))
            # options: per gpu
            nn,gg=np.nonzero(G>=milli)
            # dedupe equal levels within node
            lv=G[nn,gg]; o=np.lexsort((gg,lv,nn)); nn,gg,lv=nn[o],gg[o],lv[o]
            first=np.ones(nn.size,bool); first[1:]=(nn[1:]!=nn[:-1])|(lv[1:]!=lv[:-1])
            nn,gg=(nn,gg) if s.intgpu else (nn[first],gg[first])
            H=G[nn]; H[np.arange(nn.size),gg]-=milli
            d=s.mix.F(w.cpu[nodes[nn]]-cpu,H,w.model[nodes[nn]])-s.Fn[nodes[nn]]
            if s.card: d=d+1000*s.card*(H[np.arange(nn.size),gg])/1000
            dd=np.full(nodes.size,np.inf); g=np.zeros(nodes.size,int)
            o=np.lexsort((gg,-(100/(1+np.exp(np.clip(d/1000,-50,50)))).astype(int) if s.intgpu else d,nn)); nn2,f=np.unique(nn[o],return_index=True)
            dd[nn2]=d[o][f]; g[nn2]=gg[o][f]
            return dd,g
        okg=G>=milli; take=okg&(np.cumsum(okg,1)<=num)
        H=G-take*milli
        return s.mix.F(w.cpu[nodes]-cpu,H,w.model[nodes])-s.Fn[nodes],np.zeros(nodes.size,int)
    def table(s,k):
        e=s.cache.get(k)
        if e is None:
            al=np.arange(s.w.N); d,g=s.value(k,al); s.cache[k]=e=[d,g,len(s.log)]
        elif e[2]<len(s.log):
            dirty=np.unique(np.array(s.log[e[2]:])); d,g=s.value(k,dirty); e[0][dirty]=d; e[1][dirty]=g; e[2]=len(s.log)
        return e
    def pick(s,k,idx):
        d,g,_=s.table(k); d=d[idx]
        sc=(100/(1+np.exp(np.clip(d/1000,-50,50)))).astype(int)
        n=idx[int(sc.argmax())]; return n,g[n]
class FGDi(FGD):   # ties to the node with fewest idle
    def pick(s,k,idx):
        d,g,_=s.table(k); d=d[idx]
        sc=(100/(1+np.exp(np.clip(d/1000,-50,50)))).astype(int)
        b=idx[sc==sc.max()]; n=b[int(s.w.gpu[b].sum(1).argmin())]; return n,g[n]

def sig(d,eps=1e-9):
    return np.floor(100/(1+np.exp(np.clip(d/1000,-50,50)))+eps).astype(int)
class FGDeps(FGD):
    def pick(s,k,idx):
        d,g,_=s.table(k); d=d[idx]; sc=sig(d)
        n=idx[int(sc.argmax())]; return n,g[n]
class FGDneg(FGD):
    def pick(s,k,idx):
        d,g,_=s.table(k); d=d[idx]; sc=sig(d,-1e-9)
        n=idx[int(sc.argmax())]; return n,g[n]
class FGDcpuidle(FGD):
    def pick(s,k,idx):
        if k[2]: return FGDeps.pick(s,k,idx)
        d,g,_=s.table(k); d=d[idx]; sc=sig(d)
        b=idx[sc==sc.max()]; n=b[int(s.w.gpu[b].sum(1).argmin())]; return n,g[n]
class FGDcpubf(FGD):
    def pick(s,k,idx):
        if k[2]: return FGDeps.pick(s,k,idx)
        return BestFit.pick(s,k,idx)
class FGDlast(FGD):
    def pick(s,k,idx):
        d,g,_=s.table(k); d=d[idx]; sc=sig(d)
        n=idx[np.flatnonzero(sc==sc.max())[-1]]; return n,g[n]
class FGDlastgpu(FGD):
    def pick(s,k,idx):
        if not k[2]: return FGDlast.pick(s,k,idx)
        return FGDeps.pick(s,k,idx)
class Blend(FGD):
    intgpu=False
    a,b,ca,cb=.15,.15,.15,.15
    def pick(s,k,idx):
        w=s.w; d,g,_=s.table(k)
        a,b=(s.a,s.b) if k[2] else (s.ca,s.cb)
        v=d[idx]/1000+a*w.gpu[idx].sum(1)/8000+b*w.cpu[idx]/128000
        n=idx[int(v.argmin())]; return n,g[n]
class Scarce(Blend):
    gam=.3; a=b=ca=cb=.05; dyn=True
    def __init__(s,w,mix,rng):
        super().__init__(w,mix,rng)
        # share of GPU demand that may run on few models only, spread over the models it may run on, by supply
        sup=np.array([w.gpu[w.model==m].sum() for m in range(len(w.models))],float); s.sup=sup; s.idle=sup.copy()
        dem=np.zeros(len(w.models)); work=mix.p*mix.cnt*mix.milli
        for j in range(len(mix.p)):
            ok=mix.ok[:,j]
            if not ok.all(): dem+=work[j]*ok*sup/(sup*ok).sum()
        s.dem=dem/work.sum()
        s._upd()
    def _upd(s):
        tot=s.idle.sum() if s.dyn else s.sup.sum()
        s.press=s.dem/np.maximum(1e-9,(s.idle if s.dyn else s.sup)/tot)
    def changed(s,n):
        super().changed(n)
        if s.dyn:
            m=s.w.model[n]; s.idle[m]=s.w.gpu[s.w.model==m].sum(); s._upd()
    def pick(s,k,idx):
        w=s.w; d,g,_=s.table(k); spec=k[4]
        a,b=(s.a,s.b) if k[2] else (s.ca,s.cb)
        v=d[idx]/1000+a*w.gpu[idx].sum(1)/8000+b*w.cpu[idx]/128000
        if k[2]: v=v+s.gam*(k[2]*k[3]/1000)*np.minimum(s.press,s.cap)[w.model[idx]]
        n=idx[int(v.argmin())]; return n,g[n]
    cap=5.
def scarce(gam,ab=.05,dyn=True,cap=5.):
    return type(f"Scarce{gam}",(Scarce,),dict(gam=gam,a=ab,b=ab,ca=ab,cb=ab,dyn=dyn,cap=cap))
def sc(a,b,ca=None,cb=None,gam=.1,card=0.):
    return type("S",(Scarce,),dict(card=card,gam=gam,a=a,b=b,ca=a if ca is None else ca,cb=b if cb is None else cb))
def blend(a,b,ca,cb):
    return type(f"Blend{a},{b},{ca},{cb}",(Blend,),dict(a=a,b=b,ca=ca,cb=cb))
if __name__=="__main__":
    name=sys.argv[1]; pol=globals()[sys.argv[2]]; seeds=range(42,42+int(sys.argv[3]))
    t=time.time(); r=[run(name,s,pol) for s in seeds]
    print(name,sys.argv[2],round(np.mean(r),3),"sd",round(np.std(r,ddof=1) if len(r)>1 else 0,3),round(time.time()-t,1),"s",flush=True)
