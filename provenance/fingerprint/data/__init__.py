"""Kinds of datasets: Arrow columns, torch and booster datasets, sparse matrices, URLs."""
