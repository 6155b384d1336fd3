"""A pipeline's gate: a model, the run that it is of, and the policy that both are held against."""
