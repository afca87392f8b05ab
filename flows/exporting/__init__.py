"""What a run made, for other tools and for people elsewhere: `csr export`."""
