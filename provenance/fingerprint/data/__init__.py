"""Kinds of datasets: Arrow and pandas columns, torch and booster datasets, sparse matrices, URLs."""
