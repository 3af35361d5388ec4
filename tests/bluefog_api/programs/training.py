"""A small ResNet on images of two classes, as BlueFog's example of training is written."""

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import bluefog_pg.torch as bf
from bluefog_pg.torch import topology_util

batch_size, base_lr, epochs = 16, 0.01, 4

bf.init()
torch.manual_seed(1234)
if torch.cuda.is_available():
    torch.cuda.set_device(bf.local_rank() % torch.cuda.device_count())


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(out)))


images = torch.randn(512, 1, 8, 8)
labels = (torch.arange(512) % 2).long()
images[labels == 1, :, 2:6, 2:6] += 0.7
train_dataset = TensorDataset(images[:384], labels[:384])
test_dataset = TensorDataset(images[384:], labels[384:])
train_sampler = DistributedSampler(train_dataset, num_replicas=bf.size(), rank=bf.rank())
train_loader = DataLoader(train_dataset, batch_size=batch_size, sampler=train_sampler)
test_sampler = DistributedSampler(test_dataset, num_replicas=bf.size(), rank=bf.rank())
test_loader = DataLoader(test_dataset, batch_size=batch_size, sampler=test_sampler)

torch.manual_seed(bf.rank())
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), Block(8), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2)
)
optimizer = optim.SGD(model.parameters(), lr=base_lr * bf.size(), momentum=0.9, weight_decay=5e-5)
optimizer = bf.DistributedAdaptWithCombineOptimizer(
    optimizer, model=model, communication_type=bf.CommunicationType.neighbor_allreduce
)
bf.broadcast_parameters(model.state_dict(), root_rank=0)
bf.broadcast_optimizer_state(optimizer, root_rank=0)

if bf.is_homogeneous() and bf.size() > bf.local_size():
    dynamic_neighbors = topology_util.GetInnerOuterExpo2DynamicSendRecvRanks(
        bf.size(), local_size=bf.local_size(), self_rank=bf.rank()
    )
else:
    dynamic_neighbors = topology_util.GetDynamicOnePeerSendRecvRanks(bf.load_topology(), bf.rank())


def dynamic_topology_update(epoch, batch_idx):
    if epoch == epochs - 1 and batch_idx % 3 == 0:
        optimizer.communication_type = bf.CommunicationType.allreduce
    else:
        optimizer.communication_type = bf.CommunicationType.neighbor_allreduce
    send_neighbors, recv_neighbors = next(dynamic_neighbors)
    optimizer.dst_weights = send_neighbors
    optimizer.src_weights = {r: 1 / (len(recv_neighbors) + 1) for r in recv_neighbors}
    optimizer.self_weight = 1 / (len(recv_neighbors) + 1)
    optimizer.enable_topo_check = False


class Metric:
    def __init__(self, name):
        self.name = name
        self.sum = torch.tensor(0.0)
        self.n = torch.tensor(0.0)

    def update(self, val):
        self.sum += bf.allreduce(val.detach().cpu(), name=self.name)
        self.n += 1

    @property
    def avg(self):
        return self.sum / self.n


def train(epoch):
    model.train()
    train_sampler.set_epoch(epoch)
    train_loss = Metric("train_loss")
    for batch_idx, (data, target) in enumerate(train_loader):
        dynamic_topology_update(epoch, batch_idx)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data), target)
        loss.backward()
        optimizer.step()
        train_loss.update(loss)
    return train_loss.avg.item()


def validate():
    model.eval()
    accuracy = Metric("val_accuracy")
    with torch.no_grad():
        for data, target in test_loader:
            accuracy.update((model(data).argmax(1) == target).float().mean())
    return accuracy.avg.item()


losses = [train(epoch) for epoch in range(epochs)]
accuracy = validate()
if bf.rank() == 0:
    print(f"losses {losses}, accuracy {accuracy:.3f}")
assert losses[-1] < 0.6 * losses[0], losses
assert accuracy > 0.85, accuracy

bf.allreduce_parameters(model.state_dict())
first = model[0].weight.detach()
assert torch.allclose(first, bf.broadcast(first, root_rank=0))
bf.shutdown()
