"""Turns results.json into tables, plots and one HTML page."""
