"""Weights alone: read out of a checkpoint or a safetensors file, and exported."""
