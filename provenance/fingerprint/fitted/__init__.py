"""Fitted models that are no networks: scikit-learn estimators and boosters."""
