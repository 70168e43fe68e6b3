"""Data sets of arrays, images and text, their transforms, samplers and loader, and how an epoch is cut into batches."""

from minidl.data import transforms
from minidl.data.batches import batch_indices, epoch_order, split_batch
from minidl.data.cifar10 import cifar10
from minidl.data.collate import default_collate
from minidl.data.datasets import ArrayDataset, ConcatDataset, Dataset, Subset, random_split
from minidl.data.digits import digits
from minidl.data.loader import DataLoader
from minidl.data.mnist import mnist
from minidl.data.samplers import DistributedSampler, WeightedRandomSampler
from minidl.data.synthetic import synthetic, synthetic_images
from minidl.data.text import BPETokenizer, CharTokenizer, TextDataset, coriolanus
from minidl.data.transformed import TransformedDataset
from minidl.processes import WorkerError
