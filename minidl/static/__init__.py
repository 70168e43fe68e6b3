"""Static graphs: what a function computes, recorded once and replayed without a tape."""

from minidl.static.capture import capture
from minidl.static.graph import Graph
