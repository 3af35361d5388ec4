"""Parameters in memory that neighbours read in place, and their exchange.

flat       one flat tensor for many
block      parameters that go as one exchange, and an algorithm's variables beside them
versions   what autograd tells of changes
buffers    BatchNorm statistics and their like
network    the graphs that are averaged over, the step, and what it has cost
mean       exact averages, by allreduce, that start and finish like those over a graph
"""
