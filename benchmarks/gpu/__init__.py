"""What a GPU makes of each part of an iteration, measured on a model of LLaVA-1.5-7B's shape."""
