# %% [markdown]
# # 7. Deep learning: one name changed
#
# A training script that uses `DistributedDataParallel` changes one name. This page does so on real
# data that is as uneven as can be: each rank sees other digits. You will see
#
# - that the averaged model is as good as DDP's, and what each rank knows by itself;
# - what topologies and algorithms change, and what they cost in bytes;
# - how hooks hide the exchange behind forward and backward, in thirty lines of your own;
# - saving and resuming bit for bit, evaluating the average, and where to go from here.
#
# It needs chapter 3 (gradient descent) and scikit-learn, for its data.
# `torchrun --nproc_per_node 4 examples/tutorials/07_deep_learning.py` runs this page as a plain
# script.

# %%
import io
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import bluefog_pg.torch as bf
from bluefog_pg import DecentralizedDataParallel
from bluefog_pg.algorithms import LocalSGD
from bluefog_pg.notebook import show

bf.init()
torch.set_num_threads(1)  # ranks share the cores
torch.set_default_dtype(torch.float32)
rank, n = bf.rank(), bf.size()
assert n == 4, "this page is written for 4 ranks"


def from_all(own):
    """What each rank brings, in the order of ranks."""
    everything = [None] * n
    dist.all_gather_object(everything, own)
    return everything


# %% [markdown]
# ## Data, sorted by label
#
# 1797 handwritten digits of 8 x 8 pixels, a quarter of them for testing. The others are sorted by
# label and dealt out in that order: rank 0 gets zeros, ones and half of the twos. No rank has seen
# all of the ten digits that it is tested on.

# %%
images, labels = load_digits(return_X_y=True)
split = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
x_train, x_test, y_train, y_test = map(torch.tensor, split)
x_train, x_test = x_train.float(), x_test.float()
share = len(y_train) // n
mine = y_train.argsort(stable=True)[rank * share :][:share]
x_mine, y_mine = x_train[mine], y_train[mine]
counts = from_all(y_mine.bincount(minlength=10).tolist())


def draw_data(counts, examples):
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    top, bottom = figure.subplots(2)
    top.imshow(torch.tensor(counts), cmap="Blues", vmax=250, aspect="auto")
    for i, row in enumerate(counts):
        for digit, count in enumerate(row):
            top.text(digit, i, count or "", ha="center", va="center", fontsize=7)
    top.set(title="Images of each digit", xlabel="digit", ylabel="rank")
    top.set(xticks=range(10), yticks=range(n))
    bottom.imshow(torch.cat(examples), cmap="gray_r")
    bottom.set(title="Some of each rank's", ylabel="rank", xticks=[])
    bottom.set_yticks([4.5 + 10 * i for i in range(n)], range(n))
    return figure


some = F.pad(x_mine[:: share // 16][:16].view(16, 8, 8), (1, 1, 1, 1))
examples = from_all(torch.cat(list(some), dim=1))
if rank == 0:
    show(draw_data(counts, examples), "07_data.png")

# %% [markdown]
# ## The script
#
# An ordinary training loop. `wrap` is the only thing that differs between the runs of this page.

# %%
EPOCHS, BATCH, LR = 15, 16, 0.3


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def batches(epoch):
    order = torch.Generator().manual_seed(1000 * epoch + rank)
    return torch.randperm(share, generator=order).split(BATCH)


def train_epoch(model, optimizer, epoch):
    for batch in batches(epoch):
        optimizer.zero_grad()
        F.cross_entropy(model(x_mine[batch]), y_mine[batch]).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model):
    """Of the test images, in percent."""
    return 100 * (model(x_test).argmax(1) == y_test).double().mean().item()


def train(wrap, epochs=EPOCHS):
    """Returns the model and, for each epoch, the averaged model's accuracy and the distance."""
    model = wrap(make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=LR / 10)
    history = []
    for epoch in range(epochs):
        train_epoch(model, optimizer, epoch)
        schedule.step()
        if isinstance(model, DecentralizedDataParallel):
            with model.averaged():
                right = accuracy(model)
            history.append((right, model.consensus_distance()))
        else:
            history.append((accuracy(model), 0.0))
    return model, history


ddp, of_ddp = train(DistributedDataParallel)
model, of_ours = train(DecentralizedDataParallel)
ddp_accuracy, our_accuracy = of_ddp[-1][0], of_ours[-1][0]
if rank == 0:
    print(f"test accuracy: DDP {ddp_accuracy:.1f} %, decentralized {our_accuracy:.1f} %")
assert our_accuracy > ddp_accuracy - 1.5

# %% [markdown]
# The name has changed, and so has what happens in a step. DDP averages gradients over all ranks:
#
# $$x \leftarrow x - \gamma \, \frac1n \sum_j \nabla f_j(x).$$
#
# `DecentralizedDataParallel` averages parameters with a few neighbours, by default so
# (`algorithm="awc"`, chapter 3):
#
# $$x_i \leftarrow \sum_j w_{ij} x_j - \gamma \nabla f_i(x_i).$$
#
# Its graph is the group's, and `bf.init()` has set that: the exponential one. A script that calls
# `dist.init_process_group("bluefog")` instead gets the one-peer exponential graph of chapter 5.
#
# So ranks have models that differ. How far they are apart is the **consensus distance**
# $\sqrt{\frac1n \sum_i \lVert x_i - \bar x \rVert^2}$, which `model.consensus_distance()` measures.
# Here is also what happens without any exchange, to see that there is something to be learnt from
# others: `no_sync` makes each step a local one.


# %%
class Alone(DecentralizedDataParallel):
    def forward(self, *inputs):
        with self.no_sync():
            return super().forward(*inputs)


alone, of_alone = train(Alone, epochs=5)
each_alone = from_all(accuracy(alone))
each = from_all(accuracy(model))


def in_percent(values):
    return ", ".join(f"{value:.1f}" for value in values) + " %"


if rank == 0:
    print(f"each rank by itself, with averages:    {in_percent(each)}")
    print(f"each rank by itself, without averages: {in_percent(each_alone)}")
assert max(each_alone) < 40  # a rank cannot know digits that it has never seen: 3 of 10 at most
assert min(each) > 80


# %%
def draw_runs(histories):
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True)
    for color, (name, history) in enumerate(histories.items()):
        accuracies, distances = zip(*history, strict=True)
        epochs = range(1, len(history) + 1)
        top.plot(epochs, accuracies, f"C{color}", label=name)
        if any(distances):
            bottom.semilogy(epochs, distances, f"C{color}", label=name)
    top.set(title="The averaged model", ylabel="test accuracy, %")
    bottom.set(title="How far ranks are from it", ylabel="consensus distance", xlabel="epoch")
    for axes in (top, bottom):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    return figure


if rank == 0:
    histories = {"DDP": of_ddp, "decentralized": of_ours, "no exchange": of_alone}
    show(draw_runs(histories), "07_runs.png")

# %% [markdown]
# Ranks that never exchange drift apart for good. Those that exchange stay at a distance
# proportional to $\gamma$, because each step pulls a rank by $\gamma \nabla f_i$ to its own digits:
# as the learning rate falls, the distance follows.
#
# ## Other topologies, other algorithms
#
# Both are words. A topology is any of `bluefog-pg topo list`, or a graph of your own; an algorithm
# one of `bluefog-pg algorithms`. What they need of each other is checked when the model is made.

# %%
PEERS = "one_peer_exponential"
runs = {
    "atc, one-peer": dict(topology=PEERS, algorithm="atc"),
    "gradient tracking, one-peer": dict(topology=PEERS, algorithm="gradient_tracking"),
    "local SGD, every 4 steps": dict(algorithm=LocalSGD(every=4)),
}
table = {"DDP": (of_ddp[-1], None), "awc, exponential": (of_ours[-1], model.statistics())}
for name, options in runs.items():
    trained, history = train(partial(DecentralizedDataParallel, **options))
    table[name] = history[-1], trained.statistics()
if rank == 0:
    print(f"{'':28}   accuracy   distance   kB sent per step")
    for name, ((right, distance), cost) in table.items():
        sent = f"{cost.bytes_sent / cost.steps / 1000:10.1f}" if cost else ""
        print(f"{name:28}   {right:6.1f} %   {distance:8.4f}   {sent}")
lost = {name: ddp_accuracy - right for name, ((right, _), _) in table.items()}
each_step = [name for name in lost if not name.startswith("local")]
assert all(lost[name] < 1.5 for name in each_step)
assert lost["local SGD, every 4 steps"] < 5
assert table["gradient tracking, one-peer"][0][1] < 1e-5

# %% [markdown]
# ATC stays nearer to the mean than AWC. Gradient tracking is on it, and has DDP's accuracy. That is
# chapter 5's lemma at work: both of its variables go through $W^{(k)}$ and $W^{(k+1)}$ before they
# count, and for 4 ranks $W^{(k+1)} W^{(k)} = \frac14 \mathbf{1} \mathbf{1}^\top$. So from its
# second step on it takes DDP's steps, with messages to one neighbour at a time. Local SGD sends
# least and pays for it on data like these: in four steps alone each rank goes far towards its own
# digits.

# %% [markdown]
# ## Bytes
#
# Let the model have $S$ bytes. DDP's allreduce, by the best algorithm for large $S$, has each rank
# send $2 \frac{n-1}{n} S$, in $2 (n - 1)$ messages one after the other. A one-peer graph has it
# send $S$, in one message, however many ranks there are. Gradient tracking sends two variables; in
# the exponential graph of 4 ranks each has two neighbours. We can count:

# %%
size = sum(p.numel() * p.element_size() for p in model.parameters())


def copies(name):
    """Of the model, that a rank has sent per step."""
    cost = table[name][1]
    return cost.bytes_sent / cost.steps / size


# Up to the padding that keeps tensors aligned, and a first step in which the tracking variable is
# the gradient itself, so that there is nothing to average yet.
assert round(copies("atc, one-peer"), 2) == 1
assert round(copies("awc, exponential"), 2) == 2
assert round(copies("gradient tracking, one-peer"), 2) == 2
if rank == 0:
    print(f"S = {size / 1000:.1f} kB; sent per step and rank:")
    for ranks in (4, 16, 256):
        ring = f"{2 * (ranks - 1) / ranks:.2f} S in {2 * (ranks - 1)} messages"
        print(f"{ranks:5} ranks: DDP {ring}, one-peer 1 S in 1 message")

# %% [markdown]
# ## How the exchange hides
#
# In $x_i \leftarrow \sum_j w_{ij} x_j - \gamma \nabla f_i(x_i)$ the sum and the gradient are of the
# same $x$. So the exchange can start with the forward pass and run until backward is over. PyTorch
# has a hook for each of these moments, and that is all it takes. Here is
# `DecentralizedDataParallel` in thirty lines:


# %%
class ByHand(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module, self.moments, self.arriving = module, [], None
        self.missing = 0
        module.register_forward_pre_hook(self.before_forward)
        for parameter in module.parameters():
            parameter.register_post_accumulate_grad_hook(self.gradient_arrived)

    def before_forward(self, *_):
        x = nn.utils.parameters_to_vector(self.module.parameters()).detach()
        self.arriving = bf.neighbor_allreduce_nonblocking(x)  # returns at once
        self.missing = sum(1 for _ in self.module.parameters())
        self.moments.append("exchange starts, forward begins")

    def gradient_arrived(self, parameter):
        self.missing -= 1
        self.moments.append(f"gradient of a parameter with {parameter.numel()} numbers")
        if self.missing == 0:
            average = bf.synchronize(self.arriving)  # waits, if there is anything to wait for
            with torch.no_grad():
                nn.utils.vector_to_parameters(average, self.module.parameters())
            self.moments.append("average in place")

    def forward(self, *inputs):
        return self.module(*inputs)


bf.set_topology(bf.RingGraph(n))
by_hand, wrapped = ByHand(make_model()), DecentralizedDataParallel(make_model(), topology="ring")
optimizers = [torch.optim.SGD(each.parameters(), lr=LR) for each in (by_hand, wrapped)]
for each, optimizer in zip((by_hand, wrapped), optimizers, strict=True):
    train_epoch(each, optimizer, epoch=0)
pairs = list(zip(by_hand.parameters(), wrapped.parameters(), strict=True))
difference = max((a - b).abs().max().item() for a, b in pairs)
if rank == 0:
    print("one step by hand:", *by_hand.moments[:8], "optimizer.step()", sep="\n  ")
    print(f"after {len(batches(0))} steps the two differ by {difference:.0e}")
assert difference < 1e-5  # float32

# %% [markdown]
# The real one also puts parameters where neighbours can read them without a copy, has several
# blocks under way, accumulates, freezes, survives errors, and does the same for algorithms with
# other moments. ATC, $x_i \leftarrow \sum_j w_{ij} (x_j - \gamma \nabla f_j)$, has the exchange
# *after* the step: `lazy_combine=True` lets it run into the next forward pass, and
# `model.step_in_backward(optimizer)` starts it during backward. What that brings on slow links is
# measured in `docs/algorithms.md`. How long the program stood still for its neighbours is in the
# statistics:

# %%
wrapped.settle()  # the last step is over
cost = wrapped.statistics()
if rank == 0:
    print(
        f"{cost.steps} steps, {cost.exchanges} exchanges, waited {1000 * cost.wait_seconds:.0f} ms"
    )

# %% [markdown]
# ## Saving and resuming
#
# Ranks differ, so each one saves its own: parameters, the algorithm's variables and its step, with
# the ordinary `state_dict`. A run that stops and resumes goes on bit for bit as one that has not
# stopped, for gradient tracking too, whose $y_i$ must not get lost.


# %%
def start():
    model = DecentralizedDataParallel(make_model(), algorithm="gradient_tracking")
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


through, optimizer = start()
train_epoch(through, optimizer, epoch=0)
file = io.BytesIO()  # in a program: f"rank{rank}.pt"
torch.save({"model": through.state_dict(), "optimizer": optimizer.state_dict()}, file)
train_epoch(through, optimizer, epoch=1)

resumed, optimizer = start()
file.seek(0)
state = torch.load(file)
resumed.load_state_dict(state["model"])
optimizer.load_state_dict(state["optimizer"])
train_epoch(resumed, optimizer, epoch=1)
for each in (through, resumed):
    each.settle()  # the last average may be under way: see it arrive
both = zip(through.parameters(), resumed.parameters(), strict=True)
assert all(torch.equal(a, b) for a, b in both)
if rank == 0:
    print("equal bit for bit")

# %% [markdown]
# ## One model in the end
#
# `with model.averaged():` puts the exact average of all ranks in place, to evaluate it or to save
# it as *the* model, and takes it away again. `model.finalize()` is the same for good, at the end of
# training. What is inside is an ordinary module, which knows nothing of ranks.

# %%
own = [p.detach().clone() for p in model.parameters()]
with model.averaged():
    file = io.BytesIO()
    torch.save(model.module.state_dict(), file)
assert all(torch.equal(p, q) for p, q in zip(own, model.parameters(), strict=True))
model.finalize()
assert model.consensus_distance() < 1e-6
if rank == 0:
    file.seek(0)
    plain = make_model()
    plain.load_state_dict(torch.load(file))
    print(f"a plain module with the average: {accuracy(plain):.1f} %")
    assert abs(accuracy(plain) - our_accuracy) < 0.3  # one image of 450 is 0.22 %

# %% [markdown]
# ## Where a real job goes from here
#
# - **Several hosts.** The script stays as it is. On each host: `torchrun --nnodes 2
#   --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint host1:29400 train.py`. Ranks of one host
#   share memory, others are reached over TCP. `bluefog-pg topo auto -n 8 --ranks-per-host 4`
#   says which topology suits that.
# - **GPUs.** The same program with the module on a GPU: neighbours exchange parameters by NCCL or
#   read each other's memory. That is compiled and tested against recorders of NCCL, and has not
#   been run on a GPU yet.
# - **What scripts do**: accumulate gradients (`no_sync`), clip, schedule, autocast (with
#   `bluefog_pg.GradScaler`), `torch.compile`, run out of data at different times
#   (`with model.join():`). README.md has them under "Training scripts".
# - **Learning rates.** Start with DDP's. `awc` stands about half as much as `atc`.
# - **Watch** `consensus_distance()`. If it does not fall with the learning rate, take a denser
#   topology or `gradient_tracking`.
#
# ## What to remember
#
# - One name changes; optimizer, loop and schedule stay.
# - Ranks have models of their own, and what counts is their average. Here it was as good as DDP's
#   within 1.5 points, though no rank has ever seen more than four of the ten digits.
# - A step costs one message of $S$ bytes for each neighbour, hidden behind forward and backward.
# - Each rank saves its own state; `averaged()` is for evaluation, `finalize()` for the end.
#
# More: `docs/algorithms.md` (which algorithm to take, all equations, overlap),
# `docs/topologies.md`, and `examples/digits.py`, which is this page's comparison as a program.
