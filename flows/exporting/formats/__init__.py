"""One format of pairs and demonstrations a file, found by its name.

Each module has `MARKERS`, the texts that its trainer takes for media wherever they stand;
`FITS`, what its files were written for; `write`; and `usage`, how to train on them.
"""
