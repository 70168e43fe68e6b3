"""A cost model that predicts how the training programs of minidl scale on clusters that nobody here owns."""

from simulator.calibrate import calibrate
from simulator.hardware import Cluster
from simulator.predict import simulate
from simulator.prediction import Prediction
from simulator.stacks import Stack

__all__ = ["Cluster", "Prediction", "Stack", "calibrate", "simulate"]
