"""What the pipeline costs on a CPU, against what it replaces: `make bench`."""
