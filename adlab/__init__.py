"""adlab: anomaly detection in images, the tested implementations behind the course book."""

__version__ = "0.1.0"
