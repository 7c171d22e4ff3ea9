"""HTML reports: pages, plots and galleries, which need no network."""
