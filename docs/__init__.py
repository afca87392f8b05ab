"""The site: its pages, its configuration, and what writes the pages that are generated."""
