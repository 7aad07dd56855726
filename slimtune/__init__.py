"""Slimtune: fine-tune Qwen on the graphics card you own, and know that it helped."""

__version__ = "0.1.0"
