"""Data sets, the way they are cut into batches, and loaders."""

from minidl.data.batches import batch_indices, cut, epoch_order
from minidl.data.datasets import ArrayDataset, Dataset, digits, synthetic
from minidl.data.loader import DataLoader, DistributedSampler
