"""A cluster of your own: a file of some twenty figures beside this one, and what plans would do on it."""

from pathlib import Path

from minidl import models
from minidl.parallel import Plan
from simulator import Cluster, simulate

cluster = Cluster.load(Path(__file__).with_name("new_cluster.toml"))
model = models.builder("gpt2-large")  # 774 million parameters
half = dict(precision="bfloat16")
plans = [
    Plan(data=16, **half),
    Plan(data=16, micro_batches=8, sharding="optimizer", **half),
    Plan(data=4, pipeline=4, micro_batches=16, **half),
    Plan(data=4, tensor=4, micro_batches=8, **half),
    Plan(data=4, tensor=4, micro_batches=8, sharding="optimizer", sequence_parallel=True, **half),
]

predictions = [simulate(model, plan, cluster, batch_size=128) for plan in plans]
print(f"GPT-2 large, batch 128, on a {cluster.name}")
for p in predictions:
    fits = "fits" if p.fits else "does not fit"
    print(
        f"  {p.step_seconds:5.2f} s a step, {p.mfu:5.1%} MFU, {p.memory_bytes / 1e9:5.1f} GB, {fits:12}  {p.plan.label}"
    )
print(min((p for p in predictions if p.fits), key=lambda p: p.step_seconds))
