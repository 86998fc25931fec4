"""From results.json to tables, plots and one HTML page."""
