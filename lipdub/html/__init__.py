"""HTML reports: pages, plots and galleries, each a file that needs no network."""
